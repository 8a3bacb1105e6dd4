#include "image/image_bytes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace vmsight {
namespace {

Error ends_early() {
  return {.code = ErrorCode::bad_data, .message = "read image: it ends too early"};
}

class PlainFile final : public ImageBytes {
 public:
  PlainFile(UniqueFd fd, std::uint64_t size) : fd_(std::move(fd)), size_(size) {
    struct statfs system {};
    mappable_ = ::fstatfs(fd_.get(), &system) != 0 || system.f_type != PROC_SUPER_MAGIC;
  }
  std::uint64_t size() const override { return size_; }
  int descriptor() const override { return mappable_ ? fd_.get() : -1; }  // /proc/kcore is not
  std::uint64_t unit() const override { return page_size; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > size_ || into.size() > size_ - offset) return ends_early();
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t got = ::pread(fd_.get(), into.data() + done, into.size() - done,
                                  static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return os_error(errno, "read image");
      if (got == 0) return ends_early();
      done += static_cast<std::size_t>(got);
    }
    return {};
  }

  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    if (offset >= size_) return std::optional<ByteRun>();
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return std::optional<ByteRun>();  // a hole up to the end
    // Else a file system that does not know holes.
    const std::uint64_t start = data < 0 ? offset : static_cast<std::uint64_t>(data);
    const off_t hole = ::lseek(fd_.get(), static_cast<off_t>(start), SEEK_HOLE);
    const std::uint64_t end = hole < 0 ? size_ : std::min(size_, static_cast<std::uint64_t>(hole));
    if (end <= start) return std::optional<ByteRun>();  // the file changed in between
    return std::optional(ByteRun{start, end});
  }

 private:
  UniqueFd fd_;
  std::uint64_t size_;
  bool mappable_ = true;
};

class BytesInMemory final : public ImageBytes {
 public:
  explicit BytesInMemory(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_.size(); }
  int descriptor() const override { return -1; }
  std::uint64_t unit() const override { return page_size; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > bytes_.size() || into.size() > bytes_.size() - offset) return ends_early();
    std::copy_n(bytes_.data() + offset, into.size(), into.data());
    return {};
  }
  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    if (offset >= bytes_.size()) return std::optional<ByteRun>();
    return std::optional(ByteRun{offset, bytes_.size()});
  }

 private:
  std::span<const std::byte> bytes_;
};

class Part final : public ImageBytes {
 public:
  Part(SharedBytes whole, std::uint64_t start, std::uint64_t size)
      : whole_(std::move(whole)), start_(start), size_(size) {}
  std::uint64_t size() const override { return size_; }
  int descriptor() const override { return -1; }
  std::uint64_t unit() const override { return page_size; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > size_ || into.size() > size_ - offset) return ends_early();
    return whole_->read(start_ + offset, into);
  }
  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    if (offset >= size_) return std::optional<ByteRun>();
    VMSIGHT_TRY(const auto run, whole_->next_data(start_ + offset));
    if (!run || run->start >= start_ + size_) return std::optional<ByteRun>();
    return std::optional(ByteRun{run->start - start_, std::min(size_, run->end - start_)});
  }

 private:
  SharedBytes whole_;
  std::uint64_t start_, size_;
};

}  // namespace

Result<SharedBytes> open_plain_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return os_error(errno, "open " + path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return os_error(errno, "open " + path);
  if (!S_ISREG(status.st_mode)) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "open " + path + ": not a regular file"};
  }
  return plain_file(std::move(fd), static_cast<std::uint64_t>(status.st_size));
}

SharedBytes plain_file(UniqueFd fd, std::uint64_t size) {
  return std::make_shared<PlainFile>(std::move(fd), size);
}

SharedBytes bytes_in_memory(std::span<const std::byte> bytes) {
  return std::make_shared<BytesInMemory>(bytes);
}

SharedBytes part_of(SharedBytes whole, std::uint64_t start, std::uint64_t size) {
  return std::make_shared<Part>(std::move(whole), start, size);
}

}  // namespace vmsight
