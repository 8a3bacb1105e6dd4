// A migration of QEMU to a file ("migrate file:", "exec:cat >"), and what libvirt saves domains with
// (`virsh save`, managed save): its header and the domain's XML before such a stream, which may be
// compressed.
//
//   libvirt   "LibvirtQemudSave" | u32 version, length of what follows, was it running, compression,
//             offset of the cookie, 14 unused | XML, cookie | migration  (src/qemu/qemu_saveimage.h)
//
// A stream tells the RAM blocks by name, but not where they are in guest-physical memory: that is
// found as for raw images, of the block that is the main memory.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "image/image_format.h"
#include "image/migration_stream.h"

namespace vmsight {
namespace {

/// RAM blocks one after the other.
class StreamMemory final : public ImageBytes {
 public:
  struct Block {
    std::uint64_t start = 0, size = 0;
    StreamBlock pages;
  };
  StreamMemory(SharedBytes file, std::vector<Block> blocks)
      : file_(std::move(file)), blocks_(std::move(blocks)) {}
  std::uint64_t size() const override { return blocks_.back().start + blocks_.back().size; }
  int descriptor() const override { return -1; }
  std::uint64_t unit() const override { return page_size; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > size() || into.size() > size() - offset) {
      return Error{.code = ErrorCode::bad_data, .message = "read image: it ends too early"};
    }
    while (!into.empty()) {
      const auto piece =
          into.first(std::min<std::size_t>(into.size(), page_size - offset % page_size));
      VMSIGHT_TRY_VOID(read_piece(offset, piece));
      into = into.subspan(piece.size());
      offset += piece.size();
    }
    return {};
  }

  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    if (offset >= size()) return std::optional<ByteRun>();
    const Block& block = block_at(offset);
    if (block.pages.mapped) return next_mapped(block, offset);
    std::uint64_t at = offset & ~(page_size - 1);
    const std::uint64_t stop = block.start + block.size;
    while (at < stop && place_of(at) == 0) at += page_size;
    if (at == stop) return next_data(stop);
    std::uint64_t end = at;
    while (end < stop && place_of(end) != 0) end += page_size;
    return std::optional(ByteRun{std::max(at, offset), end});
  }

 private:
  const Block& block_at(std::uint64_t offset) const {
    const auto after =
        std::upper_bound(blocks_.begin(), blocks_.end(), offset,
                         [](std::uint64_t at, const Block& b) { return at < b.start; });
    return *std::prev(after);
  }

  /// Holes of the file are zeros; those of the block's end need not be in it.
  Result<std::optional<ByteRun>> next_mapped(const Block& block, std::uint64_t offset) const {
    const std::uint64_t end = block.start + block.size;
    VMSIGHT_TRY(const auto run, file_->next_data(block.pages.pages_at + (offset - block.start)));
    const auto place = [&](std::uint64_t at) {
      return block.start + std::min(at - block.pages.pages_at, block.size);
    };
    if (!run || place(run->start) >= end) return next_data(end);
    return std::optional(ByteRun{place(run->start), place(run->end)});
  }

  /// Where the page begins in the file; 0 if it is zeros.
  std::uint64_t place_of(std::uint64_t offset) const {
    const Block& block = block_at(offset);
    const std::uint64_t number = (offset - block.start) >> page_shift;
    if (block.pages.mapped) return block.pages.pages_at + (number << page_shift);
    return block.pages.pages[number];
  }

  Result<void> read_piece(std::uint64_t offset, std::span<std::byte> piece) const {
    std::memset(piece.data(), 0, piece.size());
    const std::uint64_t place = place_of(offset);
    const std::uint64_t at = place + offset % page_size;
    if (place == 0 || at >= file_->size()) return {};  // holes at the end need not be in the file
    return file_->read(at, piece.first(std::min<std::uint64_t>(piece.size(), file_->size() - at)));
  }

  SharedBytes file_;
  std::vector<Block> blocks_;  // by start
};

/// One block, called after the machine or by the user, or one for each node. Others are of devices.
std::vector<WantedBlock> main_memory(const std::vector<WantedBlock>& blocks) {
  std::vector<WantedBlock> nodes;
  for (const WantedBlock& block : blocks) {
    if (block.name.find("ram-node") != std::string::npos) nodes.push_back(block);
  }
  if (!nodes.empty()) return nodes;
  return {*std::max_element(blocks.begin(), blocks.end(),
                            [](const auto& a, const auto& b) { return a.size < b.size; })};
}

Error bad_migration(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("read migration file: {}", what)};
}

bool is_migration(const ImageSource& source) { return source.start.starts_with("QEVM"); }

Result<Image> read_migration(const ImageSource& source) {
  const ImageBytes& file = *source.bytes;
  VMSIGHT_TRY(const auto all, blocks_of_migration_stream(file));
  if (all.empty()) return bad_migration("no RAM in it");
  const std::vector<WantedBlock> wanted = main_memory(all);
  VMSIGHT_TRY(auto found, parse_migration_stream(file, wanted));
  std::vector<StreamMemory::Block> blocks;
  std::uint64_t start = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!found[i].found) return bad_migration("it lacks a RAM block");
    blocks.push_back({start, wanted[i].size, std::move(found[i])});
    start += wanted[i].size;
  }
  auto memory = std::make_shared<StreamMemory>(source.bytes, std::move(blocks));
  VMSIGHT_TRY(Image image, read_raw_memory(*memory));
  image.format = "migration";
  image.bytes = std::move(memory);
  return image;
}

constexpr std::uint64_t save_header = 92;

bool is_saved_domain(const ImageSource& source) {
  return source.start.starts_with("LibvirtQemudSave");
}

Result<Image> read_saved_domain(const ImageSource& source) {
  VMSIGHT_TRY(const auto version, number_at<std::uint32_t>(*source.bytes, 16));
  VMSIGHT_TRY(const auto length, number_at<std::uint32_t>(*source.bytes, 20));
  if (version == 0 || version > 3) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("read saved domain: version {}", version),
                 .hint = "`virsh restore --paused FILE`, then `vmsight snapshot`"};
  }
  const std::uint64_t stream = save_header + length, size = source.bytes->size();
  if (stream >= size) {
    return Error{.code = ErrorCode::bad_data, .message = "read saved domain: it ends too early"};
  }
  return read_wrapped(source, part_of(source.bytes, stream, size - stream), "libvirt");
}

}  // namespace

extern const ImageFormat migration_format, saved_domain_format;
const ImageFormat migration_format{is_migration, read_migration};
const ImageFormat saved_domain_format{is_saved_domain, read_saved_domain};

}  // namespace vmsight
