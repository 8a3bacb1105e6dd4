// executable-pages: pages of the kernel's own page tables that may be executed, and that neither the
// kernel's text is in nor anybody of whom the kernel knows (code_owners.h).
#include <algorithm>

#include <fmt/format.h>

#include "detect/integrity/code_owners.h"
#include "detect/integrity/integrity_check.h"
#include "detect/integrity/vmap_areas.h"
#include "kernel/architecture.h"

namespace vmsight {
namespace {

constexpr std::size_t max_page_tables = 1U << 16;  // 256 MiB of them: maps 128 GiB by small pages
constexpr GuestVirt vsyscall{0xffffffffff600000};  // VSYSCALL_ADDR, asm/vsyscall.h
constexpr std::size_t max_told = 64;

/// All of the kernel's half; the direct map, which is the largest by far, last.
std::vector<ExecutableRun> find_runs(Look& look) {
  const AddressSpace& space = look.kernel.space();
  const Architecture& architecture = space.architecture();
  const AddressSpace::Window direct = space.direct_map();
  const GuestVirt half(~0ULL << (architecture.level_shift(space.levels()) - 1));
  const std::pair<GuestVirt, GuestVirt> parts[] = {
      {half, direct.start}, {direct.end, GuestVirt(~0ULL)}, {direct.start, direct.end}};
  std::vector<ExecutableRun> runs;
  std::size_t tables = max_page_tables;
  for (const auto& [first, last] : parts) {
    if (first >= last) continue;
    if (!architecture.find_executable(look.reader.memory(), space, first, last, tables, runs))
      look.note =
          fmt::format("only so much was looked at: the page tables from {} on are too many", first);
  }
  return runs;
}

/// Owners as disjoint ranges, and where those begin that own all up to a guard page.
class OwnedPages {
 public:
  OwnedPages(std::span<const CodeOwner> owners, const KernelPlaces& places) {
    std::vector<CodeOwner> all(owners.begin(), owners.end());
    const GuestVirt end = (places.text_end() + (page_size - 1)).page();
    all.push_back({places.text_start().page(), end});
    all.push_back({vsyscall, vsyscall + page_size});
    std::ranges::sort(all, {}, &CodeOwner::start);
    for (const CodeOwner& owner : all) {
      if (owner.to_guard_page) anchors_.push_back(owner.start);
      if (!ranges_.empty() && owner.start <= ranges_.back().end)
        ranges_.back().end = std::max(ranges_.back().end, owner.end);
      else
        ranges_.push_back(owner);
    }
  }

  std::vector<ExecutableRun> left_of(std::span<const ExecutableRun> runs) const {
    std::vector<ExecutableRun> left;
    for (const ExecutableRun& run : runs) {
      const auto anchor = std::ranges::lower_bound(anchors_, run.start);
      if (anchor != anchors_.end() && *anchor < run.end()) continue;
      add_left(run, left);
    }
    return left;
  }

 private:
  void add_left(const ExecutableRun& run, std::vector<ExecutableRun>& left) const {
    GuestVirt at = run.start;
    auto range = std::ranges::upper_bound(ranges_, at, {}, &CodeOwner::end);
    for (; range != ranges_.end() && range->start < run.end(); ++range) {
      if (range->start > at) left.push_back({at, range->start - at});
      at = std::max(at, range->end);
    }
    if (at < run.end()) left.push_back({at, run.end() - at});
  }

  std::vector<CodeOwner> ranges_;  // ascending, disjoint
  std::vector<GuestVirt> anchors_;
};

void tell_run(Look& look, const ExecutableRun& run, const std::vector<VmapArea>& areas) {
  const VmapArea* area = find_area(areas, run.start);
  std::string from;
  if (area != nullptr && area->caller != GuestVirt())
    from = fmt::format("; {} asked for the memory", look.places.name(area->caller));
  const std::uint64_t pages = run.size / page_size;
  look.find({.what = fmt::format("{} executable page{} at {} that nobody owns{}", pages,
                                 pages == 1 ? "" : "s", run.start, from),
             .object = fmt::format("pages {}", run.start),
             .sources = {"page tables", "modules", "bpf_kallsyms", "kprobe_insn_slots",
                         "ftrace_ops_list"},
             .sureness = Sureness::certain,
             .address = run.start});
}

Result<void> check_executable_pages(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  CodeOwners owners = CodeOwners::read(look.kernel, look.reader, look.places);
  if (!owners.missing().empty())
    return unreadable(fmt::format("what owns executable memory ({})", owners.missing()));
  const std::vector<ExecutableRun> runs = find_runs(look);
  for (const ExecutableRun& run : runs) look.looked_at += run.size / page_size;
  if (runs.empty()) return unreadable("the kernel's page table");
  auto left = OwnedPages(owners.owners(), look.places).left_of(runs);
  if (left.empty()) return {};
  // Only now what costs more: a program of BPF that no list has, and who asked for the memory.
  if (owners.add_bpf_programs(look.kernel, look.reader))
    left = OwnedPages(owners.owners(), look.places).left_of(left);
  look.reader.clear_fault();
  const auto areas = read_vmap_areas(look.kernel, look.reader);
  look.reader.clear_fault();
  for (std::size_t i = 0; i < std::min(left.size(), max_told); ++i)
    tell_run(look, left[i], areas ? *areas : std::vector<VmapArea>());
  if (left.size() > max_told)
    look.note += fmt::format("{}{} more", look.note.empty() ? "" : "; ", left.size() - max_told);
  return {};
}

}  // namespace

extern const IntegrityCheck executable_pages_check{
    .info = {.name = "executable-pages",
             .what = "executable memory of the kernel belongs to its text, modules, BPF or tracers",
             .family = "kernel"},
    .run = check_executable_pages,
    .doubtful_during = KernelChanges::module_start,
    .looks = 8,  // half a second: a module's start is freed some time after nobody owns it
};

}  // namespace vmsight
