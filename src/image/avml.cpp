// AVML's compressed dumps (LiME version 2; https://github.com/microsoft/avml, src/image.rs): blocks,
// each a header as LiME's, then a stream of snappy frames (framing_format.txt of snappy), then the
// length of the stream. What of RAM has no block was zeros, or could not be read: it is not listed.
//
//   frame   u8 type, u24 length, then: 0xff "sNaPpY"; 0x00 u32 CRC-32C, snappy; 0x01 u32 CRC-32C,
//           plain; 0x80 ... 0xfe to be skipped. At most 64 KiB of memory each.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>

#include "image/image_format.h"
#include "image/page_codecs.h"

namespace vmsight {
namespace {

constexpr std::uint32_t avml_magic = 0x4c4d5641, avml_version = 2;
constexpr std::uint64_t avml_header = 32, frame_header = 4, checksum_size = 4;
constexpr std::uint64_t largest_frame = 65536;
constexpr std::size_t most_frames = 1U << 24;
enum FrameType : std::uint8_t {
  packed_frame = 0x00,
  plain_frame = 0x01,
  first_skipped = 0x80,
  stream_start = 0xff
};

/// CRC-32C (Castagnoli), eight bytes at a time, as the framing masks it.
class Checksum {
 public:
  Checksum() {
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82f63b78U : 0);
      tables_[0][i] = value;
    }
    for (std::size_t t = 1; t < 8; ++t) {
      for (std::size_t i = 0; i < 256; ++i) {
        const std::uint32_t before = tables_[t - 1][i];
        tables_[t][i] = before >> 8 ^ tables_[0][before & 0xff];
      }
    }
  }
  std::uint32_t of(std::span<const std::byte> bytes) const {
    std::uint32_t value = ~0U;
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
      const std::uint64_t word = number_in<std::uint64_t>(bytes, 0) ^ value;
      value = 0;
      for (std::size_t i = 0; i < 8; ++i) value ^= tables_[7 - i][word >> (8 * i) & 0xff];
    }
    for (const std::byte byte : bytes) {
      value = value >> 8 ^ tables_[0][(value ^ std::to_integer<std::uint32_t>(byte)) & 0xff];
    }
    return std::rotr(~value, 15) + 0xa282ead8U;
  }

 private:
  std::array<std::array<std::uint32_t, 256>, 8> tables_{};
};

struct SnappyFrame {
  std::uint64_t start = 0;   // in the memory of all blocks, one after the other
  std::uint64_t at = 0;      // of the checksum in the file
  std::uint32_t length = 0;  // of checksum and content
  std::uint32_t size = 0;    // unpacked
  bool packed = false;
};

/// The memory of all blocks, one after the other.
class AvmlMemory final : public ImageBytes {
 public:
  AvmlMemory(SharedBytes file, std::vector<SnappyFrame> frames)
      : file_(std::move(file)), frames_(std::move(frames)) {
    if (!frames_.empty()) size_ = frames_.back().start + frames_.back().size;
  }
  std::uint64_t size() const override { return size_; }
  int descriptor() const override { return -1; }
  std::uint64_t unit() const override { return largest_frame; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > size_ || into.size() > size_ - offset) {
      return Error{.code = ErrorCode::bad_data, .message = "read AVML dump: it ends too early"};
    }
    while (!into.empty()) {
      const auto after =
          std::upper_bound(frames_.begin(), frames_.end(), offset,
                           [](std::uint64_t at, const SnappyFrame& f) { return at < f.start; });
      const SnappyFrame& frame = *std::prev(after);
      VMSIGHT_TRY(const auto bytes, unpacked(frame));
      const std::uint64_t skip = offset - frame.start;
      const auto part = bytes.subspan(skip, std::min<std::size_t>(into.size(), frame.size - skip));
      std::copy(part.begin(), part.end(), into.begin());
      into = into.subspan(part.size());
      offset += part.size();
    }
    return {};
  }

  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    if (offset >= size_) return std::optional<ByteRun>();
    return std::optional(ByteRun{offset, size_});
  }

 private:
  /// What this thread unpacked last: the pages of a frame are read one after the other.
  struct Last {
    std::uint64_t owner = 0, start = 0;
    std::array<std::byte, largest_frame> bytes;
  };

  Result<std::span<const std::byte>> unpacked(const SnappyFrame& frame) const {
    thread_local const auto last = std::make_unique<Last>();
    const auto bytes = std::span(last->bytes).first(frame.size);
    if (last->owner == number_ && last->start == frame.start) {
      return std::span<const std::byte>(bytes);
    }
    last->owner = 0;
    std::vector<std::byte> content(frame.length);
    VMSIGHT_TRY_VOID(file_->read(frame.at, content));
    const auto packed = std::span(content).subspan(checksum_size);
    bool fits = frame.packed ? unpack_page(PageCodec::snappy, packed, bytes)
                             : packed.size() == bytes.size();
    if (fits && !frame.packed) std::copy(packed.begin(), packed.end(), bytes.begin());
    static const Checksum checksum;
    fits = fits && checksum.of(bytes) == number_in<std::uint32_t>(content, 0);
    if (!fits) {
      return Error{
          .code = ErrorCode::bad_data,
          .message = fmt::format("read AVML dump: the frame at {:#x} is damaged", frame.at)};
    }
    last->owner = number_;
    last->start = frame.start;
    return std::span<const std::byte>(bytes);
  }

  static std::uint64_t next_number() {
    static std::atomic<std::uint64_t> next = 1;
    return next++;
  }

  SharedBytes file_;
  std::vector<SnappyFrame> frames_;  // by start; none is empty
  std::uint64_t size_ = 0;
  std::uint64_t number_ = next_number();  // no other ever has it
};

Error bad_avml(std::uint64_t at, std::string_view what) {
  return {.code = ErrorCode::bad_data,
          .message = fmt::format("read AVML dump: {} at {:#x}", what, at)};
}

class AvmlIndex {
 public:
  explicit AvmlIndex(const ImageBytes& file) : file_(file) {}

  /// Stops where the file is damaged or ends; an error if that is the first block.
  Result<void> read(Image& image) {
    while (at_ < file_.size()) {
      auto block = read_block(image);
      if (block) continue;
      if (frames.empty()) return block;
      image.problems.push_back(fmt::format("{}: memory is missing", block.error().message));
      return {};
    }
    return {};
  }

  std::vector<SnappyFrame> frames;

 private:
  Result<void> read_block(Image& image) {
    const std::uint64_t head = at_;
    VMSIGHT_TRY(const auto magic, number_at<std::uint32_t>(file_, head));
    VMSIGHT_TRY(const auto version, number_at<std::uint32_t>(file_, head + 4));
    VMSIGHT_TRY(const auto first, number_at<std::uint64_t>(file_, head + 8));
    VMSIGHT_TRY(const auto last, number_at<std::uint64_t>(file_, head + 16));
    const bool fits = magic == avml_magic && version == avml_version && first <= last &&
                      last - first < static_cast<std::uint64_t>(INT64_MAX);
    if (!fits) return bad_avml(head, "no header of a block");
    at_ = head + avml_header;
    const std::uint64_t start = size_, wanted = last - first + 1;
    Result<void> done;
    while (done && size_ - start < wanted) done = read_frame(wanted - (size_ - start));
    VMSIGHT_TRY_VOID(add_segment(image, {first, wanted, start, wanted}));
    if (!done) return done;
    at_ += sizeof(std::uint64_t);  // the length of the stream
    return {};
  }

  Result<void> read_frame(std::uint64_t room) {
    std::array<std::byte, frame_header + checksum_size + 5> head{};
    const std::uint64_t left = file_.size() - std::min(at_, file_.size());
    if (left < frame_header) return bad_avml(at_, "it ends too early");
    const auto read = std::span(head).first(std::min<std::uint64_t>(head.size(), left));
    VMSIGHT_TRY_VOID(file_.read(at_, read));
    const auto type = std::to_integer<std::uint8_t>(head[0]);
    const std::uint32_t length = number_in<std::uint32_t>(head, 0) >> 8;
    if (length > left - frame_header) return bad_avml(at_, "it ends too early");
    const std::uint64_t content = at_ + frame_header;
    at_ = content + length;
    if (type >= first_skipped) {  // the start of a stream, or padding
      constexpr std::size_t more_than_anyone_writes = 1024;
      return ++skipped_ <= frames.size() + more_than_anyone_writes
                 ? Result<void>()
                 : bad_avml(content, "too many frames of nothing");
    }
    if (type > plain_frame) return bad_avml(content, "an unknown frame");
    if (length <= checksum_size || frames.size() >= most_frames)
      return bad_avml(content, "a frame");
    SnappyFrame frame{
        .start = size_, .at = content, .length = length, .packed = type == packed_frame};
    const std::uint64_t size =
        frame.packed ? packed_size(std::span(head).subspan(frame_header + checksum_size))
                     : length - checksum_size;
    if (size == 0 || size > std::min(largest_frame, room)) return bad_avml(content, "a frame");
    frame.size = static_cast<std::uint32_t>(size);
    frames.push_back(frame);
    size_ += size;
    return {};
  }

  /// A block of snappy begins with how much is in it, seven bits a byte.
  static std::uint64_t packed_size(std::span<const std::byte> bytes) {
    std::uint64_t size = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const auto byte = std::to_integer<std::uint64_t>(bytes[i]);
      size |= (byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) return size;
    }
    return 0;
  }

  const ImageBytes& file_;
  std::uint64_t at_ = 0, size_ = 0;
  std::size_t skipped_ = 0;
};

bool is_avml(const ImageSource& source) { return source.start.starts_with("AVML"); }

Result<Image> read_avml(const ImageSource& source) {
  Image image{.format = "avml"};
  AvmlIndex index(*source.bytes);
  VMSIGHT_TRY_VOID(index.read(image));
  if (image.segments.empty()) return bad_avml(0, "no memory");
  image.bytes = std::make_shared<AvmlMemory>(source.bytes, std::move(index.frames));
  return image;
}

}  // namespace

extern const ImageFormat avml_format;
const ImageFormat avml_format{is_avml, read_avml};

}  // namespace vmsight
