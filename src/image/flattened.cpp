// Flattened dumps, of makedumpfile -F and of QEMU's kdump formats before 8.2: a dump in the order in
// which it was written, for pipes. makedumpfile.h: makedumpfile_header, makedumpfile_data_header.
//
//   4096 bytes  "makedumpfile", type 1, version 1
//   pieces      i64 offset, i64 size, then the bytes; -1 -1 ends them. Numbers are big-endian.
//
// Later pieces are written over earlier ones; what no piece covers is a hole of zeros. The dump is
// read where it lies, by an index of the pieces.
#include <endian.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "image/image_format.h"

namespace vmsight {
namespace {

constexpr std::uint64_t flat_header = 4096, piece_header = 16;
constexpr std::size_t most_pieces = 1U << 22;
constexpr std::uint64_t largest_offset = 1ULL << 56;  // far beyond any memory

struct Piece {
  std::uint64_t start = 0, end = 0;  // in the dump
  std::uint64_t at = 0;              // in the file
};

struct Pieces {
  std::vector<Piece> all;  // by start, not overlapping
  bool whole = false;      // the end is marked
};

class FlattenedDump final : public ImageBytes {
 public:
  FlattenedDump(SharedBytes file, Pieces pieces)
      : file_(std::move(file)), pieces_(std::move(pieces)) {
    if (!pieces_.all.empty()) size_ = pieces_.all.back().end;
  }
  std::uint64_t size() const override { return size_; }
  int descriptor() const override { return -1; }
  std::uint64_t unit() const override { return page_size; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > size_ || into.size() > size_ - offset) return ends_early(offset);
    auto piece = after(offset);
    while (!into.empty()) {
      if (piece == pieces_.all.end() || piece->start > offset) {
        if (!pieces_.whole) return ends_early(offset);
        const std::uint64_t gap = piece == pieces_.all.end() ? into.size() : piece->start - offset;
        const std::size_t length = std::min<std::uint64_t>(gap, into.size());
        std::memset(into.data(), 0, length);
        into = into.subspan(length);
        offset += length;
        continue;
      }
      const std::size_t length = std::min<std::uint64_t>(piece->end - offset, into.size());
      VMSIGHT_TRY_VOID(file_->read(piece->at + (offset - piece->start), into.first(length)));
      into = into.subspan(length);
      offset += length;
      ++piece;
    }
    return {};
  }

  Result<std::optional<ByteRun>> next_data(std::uint64_t offset) const override {
    const auto piece = after(offset);
    if (piece == pieces_.all.end()) return std::optional<ByteRun>();
    return std::optional(ByteRun{std::max(offset, piece->start), piece->end});
  }

 private:
  static Error ends_early(std::uint64_t offset) {
    return {.code = ErrorCode::bad_data,
            .message = fmt::format("read flattened dump: nothing is at {:#x}", offset)};
  }

  /// The first piece that ends after `offset`.
  std::vector<Piece>::const_iterator after(std::uint64_t offset) const {
    return std::upper_bound(pieces_.all.begin(), pieces_.all.end(), offset,
                            [](std::uint64_t at, const Piece& piece) { return at < piece.end; });
  }

  SharedBytes file_;
  Pieces pieces_;
  std::uint64_t size_ = 0;
};

/// Nearly all pieces follow the one before; the few others are put into their place.
class PieceIndex {
 public:
  void add(Piece piece) {
    if (!pieces_.empty()) {
      Piece& last = pieces_.rbegin()->second;
      if (last.end == piece.start && last.at + (last.end - last.start) == piece.at) {
        last.end = piece.end;
        return;
      }
    }
    cut_out(piece.start, piece.end);
    pieces_.emplace(piece.start, piece);
  }
  std::size_t size() const { return pieces_.size(); }
  std::vector<Piece> take() const {
    std::vector<Piece> all;
    all.reserve(pieces_.size());
    for (const auto& [start, piece] : pieces_) all.push_back(piece);
    return all;
  }

 private:
  void cut_out(std::uint64_t start, std::uint64_t end) {
    auto at = pieces_.upper_bound(start);
    if (at != pieces_.begin() && std::prev(at)->second.end > start) --at;
    while (at != pieces_.end() && at->second.start < end) {
      const Piece old = at->second;
      at = pieces_.erase(at);
      if (old.start < start) pieces_.emplace(old.start, Piece{old.start, start, old.at});
      if (old.end > end) pieces_.emplace(end, Piece{end, old.end, old.at + (end - old.start)});
    }
  }

  std::map<std::uint64_t, Piece> pieces_;  // by start
};

Result<Pieces> index_of(const ImageBytes& file) {
  PieceIndex index;
  bool whole = false;
  std::uint64_t at = flat_header;
  while (at + piece_header <= file.size()) {
    VMSIGHT_TRY(const auto raw_offset, number_at<std::uint64_t>(file, at));
    VMSIGHT_TRY(const auto raw_size, number_at<std::uint64_t>(file, at + 8));
    const std::uint64_t offset = be64toh(raw_offset), size = be64toh(raw_size);
    whole = offset == ~0ULL && size == ~0ULL;
    if (whole || size == 0) break;  // nobody writes empty pieces: the rest was lost
    at += piece_header;
    if (offset > largest_offset || size > largest_offset || index.size() >= most_pieces) {
      return Error{.code = ErrorCode::bad_data,
                   .message = fmt::format("read flattened dump: a malformed piece at {:#x}", at)};
    }
    const std::uint64_t held = std::min(size, file.size() - at);
    if (held > 0) index.add({offset, offset + held, at});
    at += held;
  }
  return Pieces{index.take(), whole};
}

bool is_flattened(const ImageSource& source) {
  return source.start.starts_with(std::string_view("makedumpfile\0", 13));
}

Result<Image> read_flattened(const ImageSource& source) {
  VMSIGHT_TRY(Pieces pieces, index_of(*source.bytes));
  const bool whole = pieces.whole;
  if (pieces.all.empty()) {
    return Error{.code = ErrorCode::bad_data, .message = "read flattened dump: nothing in it"};
  }
  VMSIGHT_TRY(Image image,
              read_wrapped(source, std::make_shared<FlattenedDump>(source.bytes, std::move(pieces)),
                           "flattened"));
  if (!whole) image.problems.emplace_back("the flattened dump ends too early: memory is missing");
  return image;
}

}  // namespace

extern const ImageFormat flattened_format;
const ImageFormat flattened_format{is_flattened, read_flattened};

}  // namespace vmsight
