#include "vmsight/reader.h"

#include <algorithm>

#include "kernel/read_log.h"

namespace vmsight {

const std::byte* Reader::locate_slow(GuestVirt va, Slot& slot) {
  const std::uint64_t vpn = va.raw() >> page_shift;
  if (generation_ != memory_.generation()) drop_slots();
  if (slot.vpn == vpn && slot.bytes != nullptr) {
    // Known page, first touch by this object: remember it for refetch().
    slot.epoch = epoch_;
    visited_.push_back(va.page());
    return slot.bytes + va.page_offset();
  }
  const std::optional<GuestPhys> physical = space_.translate(memory_, va.page());
  const std::byte* bytes = physical ? memory_.page(*physical) : nullptr;
  if (bytes == nullptr) {
    if (ok()) visited_.push_back(va.page());  // the tables may have been caught half changed
    set_fault(va);
    if (log_ != nullptr) log_->note_absent(va);
    return nullptr;
  }
  slot = {vpn, epoch_, bytes};
  visited_.push_back(va.page());
  return bytes + va.page_offset();
}

void Reader::record(GuestVirt va, std::span<const std::byte> bytes) {
  if (log_ != nullptr) log_->note(va, bytes);
}

void Reader::record_word(GuestVirt va, std::uint64_t value, std::uint32_t size) {
  log_->note_word(va, value, size);
}

std::uint64_t Reader::value(GuestVirt object, const Member& member) {
  const GuestVirt at = object + member.offset;
  std::uint64_t raw = 0;
  switch (member.bit_size != 0 ? 8U : member.size) {
    case 1:
      raw = u8(at);
      break;
    case 2:
      raw = u16(at);
      break;
    case 4:
      raw = u32(at);
      break;
    default:
      raw = u64(at);
      break;
  }
  if (member.bit_size == 0 || member.bit_size >= 64) return raw;
  return (raw >> member.bit_offset) & ((1ULL << member.bit_size) - 1);
}

std::size_t Reader::copy(GuestVirt va, std::span<std::byte> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const GuestVirt from = va + done;
    const std::byte* bytes = locate(from);
    if (bytes == nullptr) return done;
    const std::size_t length =
        std::min<std::size_t>(page_size - from.page_offset(), into.size() - done);
    std::memcpy(into.data() + done, bytes, length);
    record(from, into.subspan(done, length));
    done += length;
  }
  return done;
}

std::string_view Reader::c_string(GuestVirt va, std::span<char> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const GuestVirt from = va + done;
    const std::byte* bytes = locate(from);
    if (bytes == nullptr) break;
    const std::size_t length =
        std::min<std::size_t>(page_size - from.page_offset(), into.size() - done);
    std::memcpy(into.data() + done, bytes, length);
    const std::span<char> piece = into.subspan(done, length);
    if (const void* end = std::memchr(piece.data(), 0, length)) {
      const auto size = static_cast<std::size_t>(static_cast<const char*>(end) - piece.data());
      record(from, std::as_bytes(piece.first(size + 1)));
      return {into.data(), done + size};
    }
    record(from, std::as_bytes(piece));
    done += length;
  }
  return {into.data(), done};
}

/// Tables too: the kernel may have mapped another page there since they were read.
void Reader::refetch() {
  std::vector<GuestPhys> tables, pages;
  std::vector<GuestVirt> walked;
  for (GuestVirt page : visited_) {
    const std::size_t before = tables.size();
    space_.append_tables(memory_, page, tables);
    if (tables.size() != before) walked.push_back(page);
    if (const auto physical = space_.translate(memory_, page)) pages.push_back(*physical);
  }
  const auto sort = [](std::vector<GuestPhys>& list) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
  };
  sort(tables);
  sort(pages);
  memory_.forget(pages);
  memory_.forget(tables);
  // What lies at a new place may have been read for another object of this view.
  std::vector<GuestPhys> moved;
  for (GuestVirt page : walked) {
    const auto physical = space_.translate(memory_, page);
    if (physical && !std::binary_search(pages.begin(), pages.end(), *physical))
      moved.push_back(*physical);
  }
  memory_.forget(moved);
  flush();
}

void Reader::drop_slots() {
  slots_.fill(Slot{});
  generation_ = memory_.generation();
}

void Reader::flush() {
  drop_slots();
  visited_.clear();
  fault_.reset();
}

}  // namespace vmsight
