#include "probe/kvm/trampoline.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>

namespace vmsight {
namespace {

constexpr std::string_view save_and_trap("\x49\x89\xe3\x0f\x08", 5);
constexpr std::uint64_t max_text = 64u << 20;  // of a kernel; 20 MiB are usual
constexpr std::uint64_t margin = 64;           // at both ends of a gap

std::string relative(char opcode, GuestVirt at, GuestVirt target) {
  const auto distance = static_cast<std::int32_t>(target - (at + 5));
  std::string code(5, opcode);
  std::memcpy(code.data() + 1, &distance, 4);
  return code;
}

bool is_filled(std::string_view bytes, char with) {
  return bytes.find_first_not_of(with) == bytes.npos;
}

std::optional<std::string> read(Reader& reader, GuestVirt from, std::size_t size) {
  std::string bytes(size, '\0');
  reader.clear_fault();
  reader.copy(from, std::as_writable_bytes(std::span(bytes)));
  const bool whole = reader.ok();
  reader.clear_fault();
  return whole ? std::optional(bytes) : std::nullopt;
}

}  // namespace

std::string Trampoline::code(GuestVirt at, GuestVirt site) {
  std::string code(save_and_trap);
  code += relative('\xe8', at + entry_end, site + 5);
  code += save_and_trap;
  code += '\xc3';
  VMSIGHT_CHECK(code.size() == size);
  return code;
}

std::string Trampoline::jump(GuestVirt site, GuestVirt at) { return relative('\xe9', site, at); }

std::optional<GuestVirt> Trampoline::site_of(GuestVirt at, std::string_view code) {
  if (code.size() != size || code[entry_end] != '\xe8') return std::nullopt;
  std::int32_t distance = 0;
  std::memcpy(&distance, code.data() + entry_end + 1, 4);
  const GuestVirt site = at + entry_end + static_cast<std::uint64_t>(std::int64_t{distance});
  return Trampoline::code(at, site) == code ? std::optional(site) : std::nullopt;
}

Result<TrampolineSpace::Place> TrampolineSpace::find(Reader& reader, GuestVirt function,
                                                     GuestVirt site) {
  const GuestVirt padding = function - Trampoline::size;
  const auto owner = kernel_.locate(padding);
  if (owner && owner->offset == 0 && owner->name.starts_with("__pfx_")) {
    const auto bytes = read(reader, padding, Trampoline::size);
    if (bytes && (is_filled(*bytes, '\x90') || Trampoline::site_of(padding, *bytes) == site)) {
      return Place{padding, *bytes};
    }
  }
  return find_in_gaps(reader, site);
}

Result<TrampolineSpace::Place> TrampolineSpace::find_in_gaps(Reader& reader, GuestVirt site) {
  if (!std::exchange(looked_, true)) find_gaps(reader);
  if (const auto known = used_.find(site); known != used_.end()) {
    return Place{known->second, Trampoline::code(known->second, site)};
  }
  while (!gaps_.empty()) {
    Gap& gap = gaps_.back();
    const GuestVirt at = gap.start;
    if (at + Trampoline::size > gap.end) {
      gaps_.pop_back();
      continue;
    }
    gap.start = at + Trampoline::size;
    if (taken_.contains(at)) continue;
    used_[site] = at;
    return Place{at, std::string(Trampoline::size, '\xcc')};
  }
  return Error{.code = ErrorCode::unsupported,
               .message =
                   "this kernel's code has no room for return probes: neither padding "
                   "before the function nor gaps around its entry code",
               .hint = "probe the entry (kprobe), or use another engine"};
}

/// One sweep over the kernel's text, page by page. What lies behind it is freed after boot.
void TrampolineSpace::find_gaps(Reader& reader) {
  const auto start = kernel_.symbol("_stext"), end = kernel_.symbol("_etext");
  if (!start || !end || *end <= *start || *end - *start > max_text) return;
  GuestVirt gap_start{};
  const auto finish = [&](GuestVirt at) {
    if (gap_start.raw() != 0) gaps_.push_back({gap_start + margin, at - margin});
    gap_start = GuestVirt(0);
  };
  for (GuestVirt page = start->page() + page_size; page + page_size <= *end;
       page = page + page_size) {
    if (!is_room(reader, page))
      finish(page);
    else if (gap_start.raw() == 0)
      gap_start = page;
  }
  finish(end->page());
}

/// A page of int3, and of trampolines that an earlier vmsight left.
bool TrampolineSpace::is_room(Reader& reader, GuestVirt page) {
  const auto bytes = read(reader, page, page_size);
  if (!bytes) return false;
  if (is_filled(*bytes, '\xcc')) return true;
  std::map<GuestVirt, GuestVirt> found;
  for (std::size_t i = 0; i < page_size; i += Trampoline::size) {
    const std::string_view slot = std::string_view(*bytes).substr(i, Trampoline::size);
    const GuestVirt at = page + i;
    if (is_filled(slot, '\xcc')) continue;
    const auto site = Trampoline::site_of(at, slot);
    if (!site) return false;
    found[*site] = at;
    taken_.insert(at);
  }
  used_.merge(found);
  return true;
}

}  // namespace vmsight
