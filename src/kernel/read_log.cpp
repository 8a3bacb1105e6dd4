#include "kernel/read_log.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vmsight/reader.h"

namespace vmsight {
namespace {

constexpr std::size_t piece_size = 512;  // bytes compared at a time

/// Whether the bytes that `copy(from, into)` gives, piece by piece, are these.
template <typename Copy>
bool are_same(std::span<const std::byte> bytes, Copy copy) {
  std::array<std::byte, piece_size> now;
  for (std::size_t done = 0; done < bytes.size(); done += piece_size) {
    const auto then = bytes.subspan(done, std::min(piece_size, bytes.size() - done));
    const auto into = std::span(now).first(then.size());
    if (copy(done, into) != into.size() || !std::ranges::equal(then, into)) return false;
  }
  return true;
}

}  // namespace

void ReadLog::begin() {
  reads_.clear();
  user_reads_.clear();
  long_.clear();
  parts_.clear();
  full_ = false;
}

void ReadLog::begin_part(std::string_view name) {
  parts_.push_back({name, reads_.size(), user_reads_.size()});
}

/// Where they are now; nullopt if there is no room.
std::optional<std::size_t> ReadLog::keep(std::span<const std::byte> bytes) {
  const std::size_t at = long_.size();
  full_ = full_ || reads() >= max_reads || at + bytes.size() > max_bytes;
  if (full_) return std::nullopt;
  long_.insert(long_.end(), bytes.begin(), bytes.end());
  return at;
}

void ReadLog::note(GuestVirt va, std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  if (bytes.empty()) return;
  if (bytes.size() <= sizeof value && va.page_offset() + bytes.size() <= page_size) {
    std::memcpy(&value, bytes.data(), bytes.size());
    return note_word(va, value, static_cast<std::uint32_t>(bytes.size()));
  }
  const auto at = keep(bytes);
  if (at) reads_.push_back({va.raw(), *at, static_cast<std::uint32_t>(bytes.size())});
}

void ReadLog::note_user(GuestPhys root, GuestVirt va, std::span<const std::byte> bytes,
                        bool is_short) {
  if (const auto at = keep(bytes)) user_reads_.push_back({root, va, *at, bytes.size(), is_short});
}

std::string_view ReadLog::part_of(std::size_t index, std::size_t Part::*begin) const {
  std::string_view name;
  for (const Part& part : parts_) {
    if (part.*begin > index) break;
    name = part.name;
  }
  return name;
}

bool ReadLog::is_same(Reader& reader, const Read& read) {
  const GuestVirt va(read.va);
  const std::byte* at = reader.locate(va);
  if (at == nullptr || read.size == 0) return at == nullptr && read.size == 0;
  if (va.page_offset() > page_size - sizeof read.value)
    return std::memcmp(at, &read.value, read.size) == 0;
  std::uint64_t now;
  std::memcpy(&now, at, sizeof now);
  return ((now ^ read.value) & (~0ULL >> (64 - 8 * read.size))) == 0;
}

Result<std::optional<ReadLog::Change>> ReadLog::changed(GuestMemory& memory,
                                                        const AddressSpace& space) const {
  VMSIGHT_TRY_VOID(memory.refresh());
  Reader reader(memory, space);
  std::optional<Change> found;
  // Pages that are fetched in one batch, where they are, are those that the view before used: all of it is gone through.
  const bool ends_early = memory.nature().direct;
  for (std::size_t i = 0; i < reads_.size() && !(found && ends_early); ++i) {
    const Read& read = reads_[i];
    const GuestVirt va(read.va);
    const bool is_word =
        read.size <= sizeof read.value && va.page_offset() + read.size <= page_size;
    const bool same = is_word ? is_same(reader, read)
                              : are_same(std::span(long_).subspan(read.value, read.size),
                                         [&](std::size_t from, std::span<std::byte> into) {
                                           return reader.copy(va + from, into);
                                         });
    if (!same && !found) found = Change{part_of(i, &Part::reads), va};
  }
  for (std::size_t i = 0; i < user_reads_.size() && !(found && ends_early); ++i) {
    const UserRead& read = user_reads_[i];
    const AddressSpace user = space.with_root(read.root);
    const bool same = are_same(std::span(long_).subspan(read.at, read.size),
                               [&](std::size_t from, std::span<std::byte> into) {
                                 return user.copy(memory, read.va + from, into);
                               });
    std::byte more{};
    const bool has_more = read.is_short && user.copy(memory, read.va + read.size, {&more, 1}) != 0;
    if ((!same || has_more) && !found) found = Change{part_of(i, &Part::user_reads), read.va};
  }
  VMSIGHT_TRY_VOID(memory.end_view());
  VMSIGHT_TRY_VOID(memory.health());
  return found;
}

}  // namespace vmsight
