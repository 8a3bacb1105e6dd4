#include "detect/integrity/text_patches.h"

#include <algorithm>

#include <fmt/format.h>

#include "detect/integrity/ftrace_tables.h"
#include "detect/integrity/kprobe_table.h"
#include "detect/integrity/own_traps.h"
#include "probe/kvm/trampoline.h"
#include "state/lists.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_table = 64U << 20;
constexpr std::size_t max_ranges = 1U << 22;
constexpr std::uint64_t jump = 5, conditional_jump = 6, entry = 9;

}  // namespace

TextPatches TextPatches::read(Kernel& kernel, Reader& reader, const KernelPlaces& places) {
  TextPatches patches;
  reader.clear_fault();
  patches.add_table(kernel, reader, "__start___jump_table", "__stop___jump_table", 16, jump);
  patches.add_table(kernel, reader, "__start_static_call_sites", "__stop_static_call_sites", 8,
                    conditional_jump);
  patches.add_table(kernel, reader, "__smp_locks", "__smp_locks_end", 4, 1);
  patches.add_modules(kernel, reader, places);
  patches.add_ftrace(kernel, reader);
  patches.add_kprobes(kernel, reader);
  patches.add_symbols(places);
  patches.sort();
  return patches;
}

/// Tables whose entries begin with the distance from the entry to the code.
void TextPatches::add_table(Kernel& kernel, Reader& reader, const char* first, const char* last,
                            std::uint32_t entry_size, std::uint64_t patched) {
  const auto start = kernel.symbol(first), end = kernel.symbol(last);
  if (!start || !end) return;  // a kernel without
  if (*end < *start || *end - *start > max_table) return miss(first);
  add_entries(reader, *start, (*end - *start) / entry_size, entry_size, patched);
  if (!reader.ok()) miss(first);
  reader.clear_fault();
}

void TextPatches::add_entries(Reader& reader, GuestVirt start, std::uint64_t count,
                              std::uint32_t entry_size, std::uint64_t patched) {
  for (std::uint64_t i = 0; i < count && reader.ok(); ++i) {
    const GuestVirt at = start + i * entry_size;
    const auto distance = static_cast<std::int64_t>(reader.get<std::int32_t>(at));
    if (reader.ok()) add(at + static_cast<std::uint64_t>(distance), patched);
  }
}

void TextPatches::add_modules(Kernel& kernel, Reader& reader, const KernelPlaces& places) {
  const struct {
    const char *entries, *count;
    std::uint32_t entry_size;
    std::uint64_t patched;
  } tables[] = {{"jump_entries", "num_jump_entries", 16, jump},
                {"static_call_sites", "num_static_call_sites", 8, conditional_jump}};
  for (const auto& table : tables) {
    const auto entries = kernel.member("module", table.entries);
    const auto count = kernel.member("module", table.count);
    if (!entries || !count) continue;  // a kernel without
    for (const LoadedModule& module : places.modules()) {
      const GuestVirt start(reader.value(module.at, *entries));
      const std::uint64_t number = reader.value(module.at, *count);
      if (number > max_table / table.entry_size) reader.set_fault(module.at);
      add_entries(reader, start, number, table.entry_size, table.patched);
      if (!reader.ok()) miss(module.name);
      reader.clear_fault();
    }
  }
  add_module_locks(kernel, reader);
}

/// Lists of the places of lock prefixes, until there is a second CPU.
void TextPatches::add_module_locks(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const GuestVirt list = members.symbol("smp_alt_modules");
  const Offset next = members.offset("smp_alt_module", "next");
  const Offset first = members.offset("smp_alt_module", "locks");
  const Offset last = members.offset("smp_alt_module", "locks_end");
  if (!members.check()) return;
  walk_list(reader, list, [&](GuestVirt node) {
    const GuestVirt start = reader.pointer(node - next + first);
    const GuestVirt end = reader.pointer(node - next + last);
    if (end < start || end - start > max_table || ranges_.size() > max_ranges)
      return reader.set_fault(node);
    add_entries(reader, start, (end - start) / 4, 4, 1);
  });
  if (!reader.ok()) miss("smp_alt_modules");
  reader.clear_fault();
}

void TextPatches::add_ftrace(Kernel& kernel, Reader& reader) {
  const auto places = read_ftrace_places(kernel, reader);
  reader.clear_fault();
  if (!places && places.error().code != ErrorCode::unsupported) return miss("ftrace_pages_start");
  if (!places) return;
  for (const GuestVirt place : *places) add(place, jump);
}

void TextPatches::add_kprobes(Kernel& kernel, Reader& reader) {
  const auto probes = read_kprobes(kernel, reader);
  if (!probes && probes.error().code != ErrorCode::unsupported) return miss("kprobe_table");
  if (!probes) return;
  for (const Kprobe& probe : *probes) add(probe.address, jump);
}

void TextPatches::add_symbols(const KernelPlaces& places) {
  for (const Symbol& symbol : places.symbols()) {
    const std::string_view name = symbol.name;
    if (name.starts_with("__SCT__") && !symbol.module.empty()) add(symbol.address, jump);
    if (!places.in_kernel_text(symbol.address)) continue;
    if (name.starts_with("__SCT__"))
      add(symbol.address, jump);
    else if (name == "ftrace_call" || name == "ftrace_regs_call" || name == "ftrace_graph_call")
      add(symbol.address, 8);
    else if (name.starts_with("bpf_dispatcher_") && name.ends_with("_func"))
      add(symbol.address, entry);
  }
}

void TextPatches::miss(std::string_view what) {
  missing_.append(missing_.empty() ? "" : ", ").append(what);
}

void TextPatches::sort() {
  std::ranges::sort(ranges_, {}, &Range::start);
  std::vector<Range> joined;
  for (const Range& range : ranges_) {
    if (!joined.empty() && range.start <= joined.back().end)
      joined.back().end = std::max(joined.back().end, range.end);
    else
      joined.push_back(range);
  }
  ranges_ = std::move(joined);
}

bool TextPatches::explains(GuestVirt address) const {
  const auto after = std::ranges::upper_bound(ranges_, address.raw(), {}, &Range::start);
  return after != ranges_.begin() && address.raw() < std::prev(after)->end;
}

std::optional<GuestVirt> TextPatches::trampoline_end(Reader& reader, GuestVirt address) const {
  const auto site = trampoline_site(reader, address);
  if (!site || !explains(*site)) return std::nullopt;
  return address + Trampoline::size;
}

}  // namespace vmsight
