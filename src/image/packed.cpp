// Images that are compressed as a whole, by gzip or zstd: unpacked into a file without a name in
// $TMPDIR (else /var/tmp), which goes when the image is closed. Pages of zeros become holes of it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "image/image_format.h"
#include "qemu/save_file.h"

namespace vmsight {
namespace {

constexpr std::size_t input_size = 1U << 18, output_size = 1U << 20;
constexpr std::uint64_t kept_free = 64U << 20;  // of the disk, for others

/// Writes one after the other, and leaves space on the disk.
class UnpackedFile {
 public:
  static Result<UnpackedFile> make(const ImageSource& source) {
    UnpackedFile file;
    VMSIGHT_TRY(file.scratch_, take_scratch(source.file));
    file.source_ = &source;
    return file;
  }

  Result<void> add(std::span<const std::byte> bytes) {
    if (size_ >= checked_) VMSIGHT_TRY_VOID(check_space());
    while (!bytes.empty()) {
      const auto block = bytes.first(std::min<std::size_t>(bytes.size(), page_size));
      if (!is_zero(block)) VMSIGHT_TRY_VOID(write(block));
      size_ += block.size();
      bytes = bytes.subspan(block.size());
    }
    return {};
  }

  Result<SharedBytes> finish() {
    if (::ftruncate(scratch_.write.get(), static_cast<off_t>(size_)) != 0) return failed(errno);
    scratch_.write.reset();  // nobody writes to it any more
    return plain_file(std::move(scratch_.read), size_);
  }

  std::uint64_t size() const { return size_; }

 private:
  static Result<ScratchFile> take_scratch(ImageFile& file) {
    if (file.no_scratch) return *file.no_scratch;
    if (file.scratch.empty()) return make_scratch_file();
    ScratchFile one = std::move(file.scratch.back());
    file.scratch.pop_back();
    return one;
  }

  static bool is_zero(std::span<const std::byte> block) {
    static constexpr std::array<std::byte, page_size> zeros{};
    return std::memcmp(block.data(), zeros.data(), block.size()) == 0;
  }

  Error failed(int error) const {
    Error reason = os_error(
        error, fmt::format("unpack the image into {}, after {} MiB", scratch_.folder, size_ >> 20));
    if (error == ENOSPC)
      reason.hint = "TMPDIR=FOLDER names another place; or unpack it there first";
    return reason;
  }

  Result<void> check_space() {
    constexpr std::uint64_t every = 32U << 20;
    checked_ = size_ + every;
    constexpr std::uint64_t largest = 1ULL << 44;  // zeros cost nothing but time
    if (size_ > largest) {
      return Error{.code = ErrorCode::bad_data,
                   .message = "unpack the image: it is larger than any memory"};
    }
    struct statvfs disk {};
    if (::fstatvfs(scratch_.write.get(), &disk) != 0) return failed(errno);
    if (std::uint64_t{disk.f_bavail} * disk.f_frsize < kept_free + every) return failed(ENOSPC);
    if (source_->options.progress) {
      source_->options.progress(fmt::format("unpacking {} into {}: {} MiB", source_->file.path,
                                            scratch_.folder, size_ >> 20));
    }
    return {};
  }

  Result<void> write(std::span<const std::byte> block) {
    std::uint64_t at = size_;
    while (!block.empty()) {
      const ssize_t written =
          ::pwrite(scratch_.write.get(), block.data(), block.size(), static_cast<off_t>(at));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return failed(errno);
      block = block.subspan(static_cast<std::size_t>(written));
      at += static_cast<std::uint64_t>(written);
    }
    return {};
  }

  ScratchFile scratch_;
  const ImageSource* source_ = nullptr;
  std::uint64_t size_ = 0, checked_ = 0;
};

enum class Ended { no, yes };

/// One step of either library: takes from `in`, writes to `out`, moves both on.
class Unpacker {
 public:
  virtual ~Unpacker() = default;
  /// True at the end of a frame or member. bad_data if it is damaged.
  virtual Result<Ended> step(std::span<const std::byte>& in, std::span<std::byte>& out) = 0;
};

Error damaged(std::string_view what) {
  return {.code = ErrorCode::bad_data,
          .message = fmt::format("unpack the image: it is damaged: {}", what)};
}

class GzipUnpacker final : public Unpacker {
 public:
  GzipUnpacker() : usable_(inflateInit2(&stream_, 15 + 16) == Z_OK) {}  // 16: gzip's header
  GzipUnpacker(const GzipUnpacker&) = delete;
  GzipUnpacker& operator=(const GzipUnpacker&) = delete;
  ~GzipUnpacker() override {
    if (usable_) inflateEnd(&stream_);
  }
  Result<Ended> step(std::span<const std::byte>& in, std::span<std::byte>& out) override {
    if (!usable_) return damaged("no memory");
    stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&stream_, Z_NO_FLUSH);
    in = in.last(stream_.avail_in);
    out = out.last(stream_.avail_out);
    if (status == Z_STREAM_END) {
      if (inflateReset(&stream_) != Z_OK) return damaged("no memory");
      return Ended::yes;
    }
    if (status != Z_OK && status != Z_BUF_ERROR) {
      return damaged(stream_.msg != nullptr ? stream_.msg : "not gzip");
    }
    return Ended::no;
  }

 private:
  z_stream stream_{};
  bool usable_;
};

class ZstdUnpacker final : public Unpacker {
 public:
  ZstdUnpacker() : stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    constexpr int largest_window = 30;  // 1 GiB, of `zstd --long=30`
    if (stream_) ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, largest_window);
  }
  Result<Ended> step(std::span<const std::byte>& in, std::span<std::byte>& out) override {
    if (!stream_) return damaged("no memory");
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer into{out.data(), out.size(), 0};
    const std::size_t left = ZSTD_decompressStream(stream_.get(), &into, &from);
    if (ZSTD_isError(left) != 0) return damaged(ZSTD_getErrorName(left));
    in = in.subspan(from.pos);
    out = out.subspan(into.pos);
    return left == 0 ? Ended::yes : Ended::no;
  }

 private:
  std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream_;
};

/// A cut off image is unpacked as far as it goes; true if it was whole.
Result<bool> unpack(const ImageBytes& packed, Unpacker& unpacker, UnpackedFile& into) {
  std::vector<std::byte> input(input_size), output(output_size);
  std::uint64_t at = 0;
  std::span<const std::byte> in;
  std::span<std::byte> out = output;
  Ended ended = Ended::no;
  while (true) {
    if (in.empty()) {
      const auto piece =
          std::span(input).first(std::min<std::uint64_t>(input.size(), packed.size() - at));
      VMSIGHT_TRY_VOID(packed.read(at, piece));
      at += piece.size();
      in = piece;
    }
    const std::size_t before = in.size() + out.size();
    if (ended == Ended::yes && in.empty()) break;
    auto step = unpacker.step(in, out);
    // What follows the last member may be padding; what was unpacked is kept.
    if (!step && ended == Ended::yes) break;
    if (!step) return step.error();
    const bool stuck = *step == Ended::no && before == in.size() + out.size();
    ended = *step;
    if (out.empty() || stuck) {
      VMSIGHT_TRY_VOID(into.add(std::span(output).first(output.size() - out.size())));
      out = output;
      if (stuck && in.empty() && at == packed.size()) return false;
      if (stuck && before == in.size() + output.size()) return false;
    }
  }
  VMSIGHT_TRY_VOID(into.add(std::span(output).first(output.size() - out.size())));
  return true;
}

Result<Image> read_packed(const ImageSource& source, Unpacker& unpacker, std::string_view name) {
  VMSIGHT_TRY(UnpackedFile file, UnpackedFile::make(source));
  VMSIGHT_TRY(const bool whole, unpack(*source.bytes, unpacker, file));
  const std::uint64_t size = file.size();
  VMSIGHT_TRY(SharedBytes inner, file.finish());
  if (source.options.said) {
    source.options.said(fmt::format("{} was unpacked into {}: {} MiB", source.file.path,
                                    temporary_directory(), size >> 20));
  }
  VMSIGHT_TRY(Image image, read_wrapped(source, std::move(inner), name));
  if (!whole) {
    image.problems.push_back(fmt::format("what {} packed ends too early: memory is missing", name));
  }
  return image;
}

bool is_gzip(const ImageSource& source) {
  return source.start.starts_with(std::string_view("\x1f\x8b\x08", 3));
}
bool is_zstd(const ImageSource& source) { return source.start.starts_with("\x28\xb5\x2f\xfd"); }

Result<Image> read_gzip(const ImageSource& source) {
  GzipUnpacker unpacker;
  return read_packed(source, unpacker, "gzip");
}
Result<Image> read_zstd(const ImageSource& source) {
  ZstdUnpacker unpacker;
  return read_packed(source, unpacker, "zstd");
}

}  // namespace

Result<ScratchFile> make_scratch_file() {
  ScratchFile file;
  file.folder = temporary_directory();
  file.write = UniqueFd(::open(file.folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.write) {
    const std::string same = fmt::format("/proc/self/fd/{}", file.write.get());
    file.read = UniqueFd(::open(same.c_str(), O_RDONLY | O_CLOEXEC));
  }
  if (!file.read) return os_error(errno, "unpack the image: make a file in " + file.folder);
  return file;
}

extern const ImageFormat gzip_format, zstd_format;
const ImageFormat gzip_format{is_gzip, read_gzip};
const ImageFormat zstd_format{is_zstd, read_zstd};

}  // namespace vmsight
