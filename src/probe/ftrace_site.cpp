#include "probe/ftrace_site.h"

#include <algorithm>

#include "kernel/architecture.h"

namespace vmsight {
namespace {

constexpr std::size_t max_pages = 1u << 14;      // of records; a kernel has some hundreds
constexpr std::uint32_t max_records = 1u << 20;  // in one

FtraceSite::State state_of(const FunctionEntry& entry, std::span<const std::byte> at) {
  if (entry.kind == FunctionEntry::Kind::nop) return FtraceSite::State::idle;
  if (entry.kind == FunctionEntry::Kind::call) return FtraceSite::State::traced;
  if (std::ranges::equal(at.first(invd_trap.size()), invd_trap)) return FtraceSite::State::probed;
  return FtraceSite::State::none;
}

}  // namespace

FtraceSites FtraceSites::resolve(Kernel& kernel, Reader& reader) {
  FtraceSites sites;
  const auto start = kernel.symbol("ftrace_pages_start");
  const auto next = kernel.member("ftrace_page", "next");
  const auto records = kernel.member("ftrace_page", "records");
  const auto index = kernel.member("ftrace_page", "index");
  const auto ip = kernel.member("dyn_ftrace", "ip");
  const auto size = kernel.type_size("dyn_ftrace");
  if (!start || !next || !records || !index || !ip || !size || *size == 0) return sites;
  sites.record_size_ = static_cast<std::uint32_t>(*size);
  sites.ip_offset_ = ip->offset;
  reader.clear_fault();
  GuestVirt at = reader.pointer(*start);
  for (std::size_t i = 0; at.raw() != 0 && reader.ok() && i < max_pages; ++i) {
    Page page{.records = reader.pointer(at + records->offset),
              .count = reader.u32(at + index->offset)};
    if (page.count != 0 && page.count <= max_records) {
      page.first = reader.u64(page.records + sites.ip_offset_);
      page.last = reader.u64(page.records + (page.count - 1) * *size + sites.ip_offset_);
      sites.pages_.push_back(page);
    }
    at = reader.pointer(at + next->offset);
  }
  if (!reader.ok()) sites.pages_.clear();
  reader.clear_fault();
  return sites;
}

std::optional<bool> FtraceSites::has_record(Reader& reader, GuestVirt place) const {
  if (pages_.empty()) return std::nullopt;
  for (const Page& page : pages_) {
    if (place.raw() < page.first || place.raw() > page.last) continue;
    std::uint32_t low = 0, high = page.count;
    while (low < high) {
      const std::uint32_t middle = low + (high - low) / 2;
      const std::uint64_t ip =
          reader.u64(page.records + std::uint64_t{middle} * record_size_ + ip_offset_);
      if (ip == place.raw()) return true;
      ip < place.raw() ? low = middle + 1 : high = middle;
    }
  }
  return reader.ok() ? std::optional(false) : std::nullopt;
}

FtraceSite FtraceSites::find(Reader& reader, GuestVirt function) const {
  std::array<std::byte, Architecture::entry_code_size> code{};
  reader.clear_fault();
  reader.copy(function, code);
  const bool readable = reader.ok();
  reader.clear_fault();
  FtraceSite site;
  if (!readable) return site;
  const FunctionEntry entry = reader.space().architecture().judge_entry(code);
  const auto at = std::span<const std::byte>(code).subspan(entry.offset);
  site.address = function + entry.offset;
  site.state = state_of(entry, at);
  std::copy_n(at.begin(), site.bytes.size(), site.bytes.begin());
  const auto known = has_record(reader, site.address);
  reader.clear_fault();
  if (known == false) {
    const bool idle = site.state == FtraceSite::State::idle;
    site.state = idle ? FtraceSite::State::unrecorded : FtraceSite::State::none;
  }
  // Without records only what cannot be anything else is believed.
  if (!known && site.state == FtraceSite::State::traced) site.state = FtraceSite::State::none;
  return site;
}

}  // namespace vmsight
