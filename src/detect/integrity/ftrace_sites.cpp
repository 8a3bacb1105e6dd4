// ftrace-sites: what is at the beginning of functions, where the kernel keeps a place for tracers.
//
//   a NOP                          nobody traces the function
//   call __fentry__                as the compiler left it: a return
//   call ftrace_caller, ...        the kernel's own entries of tracers
//   call a trampoline              of a tracer in ftrace_ops_list, or in removed_ops
//   call or jmp, in BPF            of direct_functions, or a dispatcher of BPF
//   a probe of vmsight             by the journal of changes
//   int3, and the rest of these    the kernel patches it just now
//
// Whoever calls something else from there hooks the function.
#include <algorithm>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "detect/integrity/bpf_symbols.h"
#include "detect/integrity/ftrace_tables.h"
#include "detect/integrity/integrity_check.h"
#include "kernel/architecture.h"

namespace vmsight {
namespace {

constexpr std::size_t site_size = 5;
constexpr std::byte breakpoint{0xcc};
using SiteCode = std::array<std::byte, site_size>;

/// What places may call.
struct Callees {
  std::set<GuestVirt> entries;  // of the kernel, and trampolines
  std::map<GuestVirt, GuestVirt> direct;
  std::vector<BpfSymbol> bpf;

  static Result<Callees> read(Look& look) {
    Callees all;
    for (const char* name : {"ftrace_caller", "ftrace_regs_caller", "__fentry__"}) {
      if (const auto at = look.kernel.symbol(name)) all.entries.insert(*at);
    }
    VMSIGHT_TRY(const auto tracers, read_ftrace_tracers(look.kernel, look.reader));
    for (const FtraceTracer& tracer : tracers) {
      if (tracer.trampoline != GuestVirt()) all.entries.insert(tracer.trampoline);
      if (tracer.direct != GuestVirt()) all.entries.insert(tracer.direct);
    }
    VMSIGHT_TRY(all.direct, read_ftrace_direct(look.kernel, look.reader));
    VMSIGHT_TRY(all.bpf, read_bpf_symbols(look.kernel, look.reader));
    return all;
  }

  bool has(GuestVirt site, GuestVirt target) const {
    if (entries.contains(target)) return true;
    const auto at = direct.find(site);
    if (at != direct.end() && at->second == target) return true;
    return std::ranges::any_of(bpf, [&](const BpfSymbol& symbol) {
      return target >= symbol.start && target < symbol.end;
    });
  }
};

std::string shown(const SiteCode& code) {
  std::string text;
  for (const std::byte byte : code) text += fmt::format(" {:02x}", static_cast<unsigned>(byte));
  return text;
}

/// Where a five-byte call or jump leads to.
std::optional<GuestVirt> target_of(GuestVirt site, const SiteCode& code) {
  if (code[0] != std::byte{0xe8} && code[0] != std::byte{0xe9}) return std::nullopt;
  std::int32_t distance;
  std::memcpy(&distance, &code[1], sizeof(distance));
  return site + site_size + static_cast<std::uint64_t>(std::int64_t{distance});
}

void tell_site(Look& look, GuestVirt site, const SiteCode& code) {
  const std::string function = look.places.name(site);
  const std::string_view text(reinterpret_cast<const char*>(code.data()), code.size());
  Finding finding{.object = fmt::format("site {}", function),
                  .sources = {"ftrace_pages_start", "ftrace_ops_list", "removed_ops", "journal"},
                  .sureness = Sureness::certain,
                  .address = site};
  const auto target = target_of(site, code);
  if (is_trap(text) || (target && trampoline_site(look.reader, *target) == site)) {
    finding.what = fmt::format(
        "{} has a probe of vmsight that no vmsight has armed: it was left behind, or copied",
        function);
    finding.sureness = Sureness::likely;
  } else if (target) {
    finding.what =
        fmt::format("{} {} {}, which is no tracer's", function,
                    code[0] == std::byte{0xe8} ? "calls" : "jumps to", look.places.name(*target));
  } else if (code[0] == breakpoint) {
    finding.what = fmt::format(
        "{} has a breakpoint: it is patched just now, or its patching stopped", function);
    finding.sureness = Sureness::hint;
  } else {
    finding.what = fmt::format("{} begins with{}, where the kernel keeps a place for tracers",
                               function, shown(code));
  }
  look.find(std::move(finding));
}

Result<void> check_ftrace_sites(Look& look) {
  VMSIGHT_TRY(const Callees callees, Callees::read(look));
  VMSIGHT_TRY(const auto places, read_ftrace_places(look.kernel, look.reader));
  const Architecture& architecture = look.kernel.space().architecture();
  std::size_t own = 0;
  for (const GuestVirt site : places) {
    SiteCode code{};
    look.reader.copy(site, code);
    const bool readable = look.reader.ok();
    look.reader.clear_fault();
    if (!readable) continue;  // of a module that goes, or of code that was freed after boot
    ++look.looked_at;
    if (architecture.nop_length(code, false) == site_size) continue;
    const OwnTrap* trap = find_own_trap(look.own_traps, site);
    if (trap != nullptr &&
        trap->code == std::string_view(reinterpret_cast<const char*>(code.data()), code.size())) {
      ++own;
      continue;
    }
    const auto target = target_of(site, code);
    if (target && callees.has(site, *target)) continue;
    tell_site(look, site, code);
  }
  if (own != 0) look.note = fmt::format("{} sites have probes of vmsight itself", own);
  return look.looked_at != 0 ? Result<void>() : unreadable("the code at ftrace_pages_start");
}

}  // namespace

extern const IntegrityCheck ftrace_sites_check{
    .info = {.name = "ftrace-sites",
             .what = "functions begin with a NOP, or with the call of a tracer that is known",
             .family = "kernel"},
    .run = check_ftrace_sites,
    .doubtful_during = KernelChanges::code,
};

}  // namespace vmsight
