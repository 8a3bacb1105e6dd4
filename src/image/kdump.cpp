// kdump-compressed dumps of makedumpfile and of QEMU's dump-guest-memory: IMPLEMENTATION and
// diskdump_mod.h of makedumpfile, dump/dump.c of QEMU. Blocks are pages of 4 KiB.
//
//   block 0  header: "KDUMP   ", sizes of what follows
//   1 ...    sub-header: where the notes are and VMCOREINFO
//   ...      bitmap 1: page frames that are RAM; bitmap 2: those that the dump has
//   ...      a descriptor for each bit of bitmap 2: where, how long, compressed how
//   ...      pages; those of zeros share one
//
// A page in bitmap 1 only was excluded: it is absent. Nothing but the bitmaps is kept in memory.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "image/image_format.h"
#include "image/page_codecs.h"

namespace vmsight {
namespace {

// Offsets in struct disk_dump_header of 64-bit systems, and in struct kdump_sub_header.
constexpr std::size_t version_at = 8, status_at = 424, block_size_at = 428, sub_blocks_at = 432,
                      bitmap_blocks_at = 436, max_frame_at = 440;
constexpr std::size_t split_at = 12, vmcoreinfo_at = 32, notes_at = 48, max_frame_64_at = 96;
constexpr std::uint32_t status_incomplete = 0x8;
constexpr std::uint64_t max_bitmap = 1ULL << 28;  // of 8 TiB
constexpr std::uint64_t max_text = 1U << 20, max_note_bytes = 64U << 20;
constexpr std::size_t most_runs = 1U << 20;

/// struct page_desc.
struct Descriptor {
  std::uint64_t offset = 0;
  std::uint32_t size = 0, flags = 0;
  std::uint64_t page_flags = 0;
};
static_assert(sizeof(Descriptor) == 24);

Error bad_kdump(std::string_view what) {
  return {.code = ErrorCode::bad_data,
          .message = fmt::format("read kdump: {}", what),
          .hint = "the dump may be incomplete"};
}

/// A bit for each page frame, and how many are set before each group of words.
class FrameBits {
 public:
  FrameBits() = default;
  explicit FrameBits(std::vector<std::uint64_t> words) : words_(std::move(words)) {
    before_.reserve(words_.size() / group + 1);
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (i % group == 0) before_.push_back(count_);
      count_ += ones(words_[i]);
    }
  }
  bool has(std::uint64_t frame) const {
    return frame / 64 < words_.size() && (words_[frame / 64] >> frame % 64 & 1) != 0;
  }
  std::uint64_t count() const { return count_; }
  std::uint64_t count_before(std::uint64_t frame) const {
    const std::size_t word = frame / 64;
    std::uint64_t count = before_[word / group];
    for (std::size_t i = word / group * group; i < word; ++i) count += ones(words_[i]);
    return count + ones(words_[word] & ((1ULL << frame % 64) - 1));
  }
  /// The next frame from `from` on whose bit is `set`; the number of bits if there is none.
  std::uint64_t next(std::uint64_t from, bool set) const {
    const std::uint64_t flip = set ? 0 : ~0ULL;
    for (std::uint64_t i = from / 64; i < words_.size(); ++i) {
      std::uint64_t word = words_[i] ^ flip;
      if (i == from / 64) word &= ~0ULL << from % 64;
      if (word != 0) return i * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
    }
    return words_.size() * 64;
  }

 private:
  static constexpr std::size_t group = 8;
  static std::uint64_t ones(std::uint64_t word) {
    return static_cast<std::uint64_t>(std::popcount(word));
  }

  std::vector<std::uint64_t> words_, before_;
  std::uint64_t count_ = 0;
};

struct KdumpLayout {
  FrameBits dumped;
  std::uint64_t frames = 0;
  std::uint64_t descriptors = 0;  // where they begin
  bool absent_is_zero = false;
};

/// Guest-physical memory: byte N is address N.
class KdumpMemory final : public ImageBytes {
 public:
  KdumpMemory(SharedBytes file, KdumpLayout layout)
      : file_(std::move(file)), layout_(std::move(layout)) {}
  std::uint64_t size() const override { return layout_.frames * page_size; }
  int descriptor() const override { return -1; }
  std::uint64_t unit() const override { return page_size; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    while (!into.empty()) {
      const std::uint64_t in_page = offset % page_size;
      const auto piece = into.first(std::min<std::size_t>(into.size(), page_size - in_page));
      if (piece.size() == page_size) {
        VMSIGHT_TRY_VOID(read_page(offset / page_size, piece));
      } else {
        std::array<std::byte, page_size> page;
        VMSIGHT_TRY_VOID(read_page(offset / page_size, page));
        std::copy_n(page.data() + in_page, piece.size(), piece.data());
      }
      into = into.subspan(piece.size());
      offset += piece.size();
    }
    return {};
  }

  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    const std::uint64_t first = layout_.dumped.next(offset / page_size, true);
    if (first >= layout_.frames) return std::optional<ByteRun>();
    const std::uint64_t last = std::min(layout_.dumped.next(first, false), layout_.frames);
    return std::optional(ByteRun{std::max(offset, first * page_size), last * page_size});
  }

 private:
  static Error damaged(std::uint64_t frame, std::string_view what) {
    return {.code = ErrorCode::bad_data,
            .message = fmt::format("read {}: {}", GuestPhys(frame * page_size), what)};
  }

  Result<void> read_page(std::uint64_t frame, std::span<std::byte> into) const {
    if (frame >= layout_.frames || !layout_.dumped.has(frame)) {
      if (layout_.absent_is_zero && frame < layout_.frames) {
        std::fill(into.begin(), into.end(), std::byte{0});
        return {};
      }
      return Error{
          .code = ErrorCode::fault,
          .message = fmt::format("read {}: left out of the dump", GuestPhys(frame * page_size)),
          .address = frame * page_size};
    }
    const std::uint64_t at =
        layout_.descriptors + layout_.dumped.count_before(frame) * sizeof(Descriptor);
    VMSIGHT_TRY(const auto page, number_at<Descriptor>(*file_, at));
    return unpack(frame, page, into);
  }

  Result<void> unpack(std::uint64_t frame, const Descriptor& page,
                      std::span<std::byte> into) const {
    if (page.offset == 0 || page.size == 0) return damaged(frame, "not in the dump");
    if (page.size > page_size) return damaged(frame, "it is longer compressed than it may be");
    constexpr std::uint32_t codecs = 0x1 | 0x2 | 0x4 | 0x20;
    if ((page.flags & codecs) == 0) {
      if (page.size != page_size) return damaged(frame, "not a whole page");
      return file_->read(page.offset, into);
    }
    std::array<std::byte, page_size> packed;
    const auto bytes = std::span(packed).first(page.size);
    VMSIGHT_TRY_VOID(file_->read(page.offset, bytes));
    const PageCodec codec = (page.flags & 0x1) != 0   ? PageCodec::zlib
                            : (page.flags & 0x2) != 0 ? PageCodec::lzo
                            : (page.flags & 0x4) != 0 ? PageCodec::snappy
                                                      : PageCodec::zstd;
    if (!unpack_page(codec, bytes, into)) return damaged(frame, "it cannot be unpacked");
    return {};
  }

  SharedBytes file_;
  KdumpLayout layout_;
};

struct KdumpHeader {
  std::uint32_t version = 0, status = 0, block_size = 0, sub_blocks = 0, bitmap_blocks = 0;
  std::uint64_t frames = 0;
  std::vector<std::byte> sub;  // the sub-header
};

Result<KdumpHeader> read_kdump_header(const ImageBytes& file) {
  std::vector<std::byte> raw(464);
  VMSIGHT_TRY_VOID(file.read(0, raw));
  KdumpHeader header{.version = number_in<std::uint32_t>(raw, version_at),
                     .status = number_in<std::uint32_t>(raw, status_at),
                     .block_size = number_in<std::uint32_t>(raw, block_size_at),
                     .sub_blocks = number_in<std::uint32_t>(raw, sub_blocks_at),
                     .bitmap_blocks = number_in<std::uint32_t>(raw, bitmap_blocks_at),
                     .frames = number_in<std::uint32_t>(raw, max_frame_at),
                     .sub = std::vector<std::byte>(104)};
  if (header.block_size != page_size) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("read kdump: pages of {} bytes, not of an x86-64 machine",
                                        header.block_size)};
  }
  const std::uint64_t bitmap = std::uint64_t{header.bitmap_blocks} * page_size;
  const std::uint64_t bitmap_start = (1 + std::uint64_t{header.sub_blocks}) * page_size;
  if (header.sub_blocks == 0 || bitmap == 0 || bitmap > max_bitmap * 2 ||
      bitmap_start > file.size() || bitmap > file.size() - bitmap_start) {
    return bad_kdump("its bitmaps are not in the file");
  }
  VMSIGHT_TRY_VOID(file.read(page_size, header.sub));
  const auto frames = number_in<std::uint64_t>(header.sub, max_frame_64_at);
  if (header.version >= 6 && frames != 0) header.frames = frames;
  header.frames = std::min(header.frames, bitmap * 8);  // no more can have a bit
  if (header.version >= 2 && number_in<std::uint32_t>(header.sub, split_at) != 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "read kdump: it is one part of a split dump",
                 .hint = "makedumpfile --reassemble joins them"};
  }
  return header;
}

Result<std::vector<std::uint64_t>> bitmap_at(const ImageBytes& file, std::uint64_t at,
                                             std::uint64_t size) {
  std::vector<std::uint64_t> words(size / sizeof(std::uint64_t));
  VMSIGHT_TRY_VOID(file.read(at, std::as_writable_bytes(std::span(words))));
  return words;
}

/// Bits beyond the last frame mean nothing.
void cut_to(std::vector<std::uint64_t>& words, std::uint64_t frames) {
  if (words.size() * 64 <= frames) return;
  words.resize((frames + 63) / 64);
  if (frames % 64 != 0) words.back() &= (1ULL << frames % 64) - 1;
}

struct Bitmaps {
  FrameBits ram, dumped;
};

Result<Bitmaps> read_bitmaps(const ImageBytes& file, const KdumpHeader& header) {
  const std::uint64_t all = std::uint64_t{header.bitmap_blocks} * page_size;
  const std::uint64_t start = (1 + std::uint64_t{header.sub_blocks}) * page_size;
  // Where one bitmap would fill all of the blocks there is only one (diskdump of old).
  const bool two = header.frames <= all / 2 * 8;
  const std::uint64_t each = two ? all / 2 : all;
  VMSIGHT_TRY(auto dumped, bitmap_at(file, start + (two ? each : 0), each));
  VMSIGHT_TRY(auto ram, bitmap_at(file, start, each));
  for (std::size_t i = 0; i < ram.size(); ++i) ram[i] |= dumped[i];
  cut_to(ram, header.frames);
  cut_to(dumped, header.frames);
  return Bitmaps{FrameBits(std::move(ram)), FrameBits(std::move(dumped))};
}

/// A part of the file that the sub-header names: u64 offset, u64 size. Empty if there is none.
Result<std::vector<std::byte>> named_part(const ImageBytes& file, const KdumpHeader& header,
                                          std::size_t at, std::uint64_t most) {
  const auto offset = number_in<std::uint64_t>(header.sub, at);
  const auto size = number_in<std::uint64_t>(header.sub, at + 8);
  if (offset == 0 || size == 0) return std::vector<std::byte>();
  if (size > most || offset > file.size() || size > file.size() - offset) {
    return bad_kdump("what its header names is not in the file");
  }
  std::vector<std::byte> part(size);
  VMSIGHT_TRY_VOID(file.read(offset, part));
  return part;
}

void read_details(const ImageBytes& file, const KdumpHeader& header, Image& image) {
  if (header.version >= 4) {
    if (const auto notes = named_part(file, header, notes_at, max_note_bytes)) {
      read_notes(*notes, image);
    } else {
      image.problems.emplace_back("notes (registers of the vCPUs) are not in the file");
    }
  }
  if (header.version >= 3 && image.vmcoreinfo.empty()) {
    const auto text = named_part(file, header, vmcoreinfo_at, max_text);
    if (text) image.vmcoreinfo.assign(reinterpret_cast<const char*>(text->data()), text->size());
  }
}

Result<void> add_ram(Image& image, const FrameBits& ram, std::uint64_t frames) {
  for (std::uint64_t at = ram.next(0, true); at < frames;) {
    const std::uint64_t end = std::min(ram.next(at, false), frames);
    if (image.segments.size() >= most_runs) return bad_kdump("its memory is in too many runs");
    const std::uint64_t start = at * page_size, size = (end - at) * page_size;
    VMSIGHT_TRY_VOID(add_segment(image, {start, size, start, size}));
    at = ram.next(end, true);
  }
  if (image.segments.empty()) return bad_kdump("no memory in it");
  return {};
}

bool is_kdump(const ImageSource& source) { return source.start.starts_with("KDUMP   "); }

Result<Image> read_kdump(const ImageSource& source) {
  const ImageBytes& file = *source.bytes;
  VMSIGHT_TRY(const KdumpHeader header, read_kdump_header(file));
  VMSIGHT_TRY(Bitmaps bitmaps, read_bitmaps(file, header));
  const std::uint64_t blocks = 1 + std::uint64_t{header.sub_blocks} + header.bitmap_blocks;
  Image image{.format = "kdump"};
  VMSIGHT_TRY_VOID(add_ram(image, bitmaps.ram, header.frames));
  read_details(file, header, image);
  if ((header.status & status_incomplete) != 0) {
    image.problems.emplace_back("the dump is incomplete: whoever wrote it ran out of space");
  }
  const std::uint64_t end = blocks * page_size + bitmaps.dumped.count() * sizeof(Descriptor);
  if (end > file.size()) image.problems.emplace_back("the file ends too early: pages are missing");
  const bool zeros = source.options.absent_is_zero;
  if (!zeros) image.absent_bytes = (bitmaps.ram.count() - bitmaps.dumped.count()) * page_size;
  image.bytes =
      std::make_shared<KdumpMemory>(source.bytes, KdumpLayout{.dumped = std::move(bitmaps.dumped),
                                                              .frames = header.frames,
                                                              .descriptors = blocks * page_size,
                                                              .absent_is_zero = zeros});
  return image;
}

}  // namespace

extern const ImageFormat kdump_format;
const ImageFormat kdump_format{is_kdump, read_kdump};

}  // namespace vmsight
