// The table of techniques: their names, whether they work here, and opening one by name.
#include "view/technique.h"

#include <algorithm>
#include <array>

#include "view/copy_snapshot.h"
#include "view/halted.h"
#include "view/live_snap.h"
#include "view/techniques_of_qemu.h"

namespace vmsight {
namespace {

using std::chrono::milliseconds;

template <auto open>
Result<std::unique_ptr<GuestMemory>> never_halted(const Vm& vm, std::string_view, milliseconds) {
  return open(vm);
}

/// It knows its own name.
template <auto open>
Result<std::unique_ptr<GuestMemory>> named(const Vm& vm, std::string_view, milliseconds max_halt) {
  return open(vm, max_halt);
}

// A whole state of a large guest by QEMU's interfaces takes seconds.
constexpr milliseconds max_interface{5'000};
constexpr milliseconds max_text_interface{10'000};

constexpr std::array<Technique, 23> techniques{{
    {.name = "live-map",
     .what = "shared guest RAM mapped into our process",
     .cost = "nothing",
     .open = never_halted<open_live_map>},
    {.name = "live-read",
     .what = "batched process_vm_readv of any guest RAM",
     .cost = "nothing",
     .open = never_halted<open_live_read>},
    {.name = "halt-map:ptrace",
     .what = "shared guest RAM mapped, with the vCPU threads stopped by ptrace",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .open = open_halted<open_live_map, open_ptrace_halter>},
    {.name = "halt-read:ptrace",
     .what = "process_vm_readv of any guest RAM, with the vCPU threads stopped by ptrace",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .open = open_halted<open_live_read, open_ptrace_halter>},
    {.name = "halt-map:stop",
     .what = "shared guest RAM mapped, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, some milliseconds; its clock stands too",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .open = open_halted<open_live_map, open_stop_halter>},
    {.name = "halt-read:stop",
     .what = "process_vm_readv of any guest RAM, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, some milliseconds; its clock stands too",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .open = open_halted<open_live_read, open_stop_halter>},
    {.name = "halt-map:freezer",
     .what = "shared guest RAM mapped, with the vCPU threads frozen in a cgroup",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .open = open_halted<open_live_map, open_freezer_halter>},
    {.name = "halt-read:freezer",
     .what = "process_vm_readv of any guest RAM, with the vCPU threads frozen in a cgroup",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .open = open_halted<open_live_read, open_freezer_halter>},
    {.name = "halt-snap:copy",
     .what = "all populated guest RAM copied, with the vCPU threads stopped by ptrace",
     .cost = "the vCPUs stand while all is copied, 10 ms and more for 100 MB; the clock runs on",
     .abilities = {.consistent = true, .pauses = true, .halts = true, .copies = true},
     .copies_all = true,
     .open = named<open_copy_snapshot>},
    {.name = "live-interface:pmemsave",
     .what = "QMP pmemsave of each run of pages into a file in our memory",
     .cost = "QEMU's main loop works for us about 0.5 ms a run of pages; the vCPUs run on",
     .open = never_halted<open_monitor_pmemsave>},
    {.name = "live-interface:xp",
     .what = "pages as text from the human monitor",
     .cost = "QEMU's main loop works for us about 1 ms a page; the vCPUs run on",
     .open = never_halted<open_monitor_xp>},
    {.name = "halt-interface:gdbstub",
     .what = "physical reads through QEMU's gdbstub, which is started for each view",
     .cost = "the guest stands while it is read, tens of milliseconds; its clock stands too",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .max_halt = max_interface,
     .open = named<open_gdbstub>},
    {.name = "halt-interface:pmemsave",
     .what = "QMP pmemsave of each run of pages, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, some 0.5 ms a run of pages; its clock stands too",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .max_halt = max_interface,
     .open = open_halted<open_monitor_pmemsave, open_stop_halter>},
    {.name = "halt-interface:xp",
     .what = "pages as text from the human monitor, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, about 1 ms a page; its clock stands too",
     .abilities = {.consistent = true, .pauses = true, .halts = true},
     .max_halt = max_text_interface,
     .open = open_halted<open_monitor_xp, open_stop_halter>},
    {.name = "live-snap:uffd",
     .what = "guest RAM write-protected by a userfaultfd; pages are copied before they are written",
     .cost = "stands for some milliseconds; then each first write to a page waits for its copy",
     .abilities = {.consistent = true, .pauses = true, .copies = true, .injects = true},
     .open = named<open_live_snap_uffd>},
    {.name = "live-snap:fork",
     .what = "a stopped copy of the QEMU process, made by fork",
     .cost = "stands for some milliseconds; then each first write to a page is a page fault",
     .abilities = {.consistent = true, .pauses = true, .copies = true, .injects = true},
     .open = named<open_live_snap_fork>},
    {.name = "live-snap:background",
     .what = "QEMU's background snapshot into a file: the moment at its start",
     .cost = "a pause of milliseconds; each page's first write waits until the page is saved",
     .abilities = {.consistent = true, .pauses = true, .copies = true},
     .open = named<open_live_snap_background>},
    {.name = "live-snap:mapped-ram",
     .what = "QEMU's migration into a file with a place for each page: the moment at its end",
     .cost =
         "a pause of milliseconds at the end, and until we let it run on; dirty tracking before",
     .abilities = {.consistent = true, .pauses = true, .copies = true},
     .open = named<open_live_snap_mapped_ram>},
    {.name = "halt-snap:migrate",
     .what = "QEMU's migration into a file while the guest is stopped by QMP",
     .cost = "the guest stands while its populated RAM is written, 0.1 s and more for 100 MB",
     .abilities = {.consistent = true, .pauses = true, .halts = true, .copies = true},
     .copies_all = true,
     .open = named<open_halt_snap_migrate>},
    {.name = "halt-snap:pmemsave",
     .what = "QMP pmemsave of all guest RAM, with the guest stopped by QMP",
     .cost = "the guest stands while all of its RAM is written, holes too: seconds for a GiB",
     .abilities = {.consistent = true, .pauses = true, .halts = true, .copies = true},
     .copies_all = true,
     .open = named<open_halt_snap_pmemsave>},
    {.name = "halt-snap:dump",
     .what = "dump-guest-memory into a file",
     .cost = "the guest stands while all of its RAM is written, holes too: seconds for a GiB",
     .abilities = {.consistent = true, .pauses = true, .halts = true, .copies = true},
     .open = never_halted<open_halt_snap_dump>},
    {.name = "agent:vmsight",
     .what = "pages from vmsight-agent, a program of ours in the guest",
     .cost = "the guest itself reads and sends the pages; it runs on",
     .open = never_halted<open_vmsight_agent>},
    {.name = "agent:qga",
     .what = "pages from the stock qemu-guest-agent, as base64 of the guest's /proc/kcore",
     .cost = "the guest itself reads, encodes and sends the pages; it runs on",
     .open = never_halted<open_guest_agent>},
}};

/// Of one view. QEMU needs up to 2 ms to write a MiB; a busy host may need more.
milliseconds max_halt_of(const Technique& technique, const Vm& vm, const TechniqueWish& wish) {
  constexpr std::uint64_t ms_per_mib = 5;
  if (wish.max_halt) return *wish.max_halt;
  if (!technique.copies_all) return technique.max_halt;
  return technique.max_halt + milliseconds((vm.ram().total_bytes() >> 20) * ms_per_mib);
}

Result<std::unique_ptr<GuestMemory>> try_opening(const Vm& vm, const Technique& technique,
                                                 const TechniqueWish& wish) {
  return technique.open(vm, technique.name, max_halt_of(technique, vm, wish));
}

/// By what the user typed: a technique, or its class.
bool names(std::string_view wanted, const Technique& technique) {
  return wanted == technique.name ||
         (technique.name.starts_with(wanted) && technique.name[wanted.size()] == ':');
}

/// What the wish is missing in this technique, or "".
std::string_view misfit(const TechniqueWish& wish, const Technique& technique) {
  const TechniqueAbilities& can = technique.abilities;
  if (wish.consistent && !can.consistent) return "a view does not show one moment";
  if (wish.copy && can.pauses && !can.copies) return "the guest would be halted too long";
  if (wish.no_pause && can.pauses) return "it stops the guest for a while";
  if (wish.no_injection && can.injects) return "it runs system calls inside QEMU";
  return "";
}

TechniqueStatus describe(const Technique& technique) {
  return {.name = technique.name,
          .what = technique.what,
          .cost = technique.cost,
          .abilities = technique.abilities};
}

Error no_such(std::string_view name) {
  std::string all = "auto";
  for (const Technique& technique : techniques) all.append(", ").append(technique.name);
  return {.code = ErrorCode::usage,
          .message = fmt::format("open a view: no technique is called \"{}\"", name),
          .hint = "techniques: " + all};
}

struct Opened {
  std::unique_ptr<GuestMemory> memory;
  TechniqueStatus status;
};
using PassedOver = std::vector<TechniqueStatus>;

/// Of the techniques that are meant, the first that fits and works.
template <typename IsMeant>
Result<Opened> open_first(const Vm& vm, IsMeant is_meant, const TechniqueWish& wish,
                          PassedOver* passed_over) {
  std::optional<Error> first;
  for (const Technique& technique : techniques) {
    if (!is_meant(technique)) continue;
    TechniqueStatus status = describe(technique);
    status.reason = misfit(wish, technique);
    if (status.reason.empty()) {
      auto memory = try_opening(vm, technique, wish);
      status.usable = memory.has_value();
      if (memory) return Opened{*std::move(memory), std::move(status)};
      status.reason = memory.error().message;
      if (!first) first = std::move(memory).error();
    }
    if (passed_over != nullptr) passed_over->push_back(std::move(status));
  }
  if (first) return *std::move(first);
  return Error{.code = ErrorCode::unsupported,
               .message = "open a view: no technique gives all that was asked for",
               .hint = "drop one of --consistent, --no-pause, --no-injection"};
}

Result<Opened> open_auto(const Vm& vm, const TechniqueWish& wish, PassedOver* passed_over) {
  return open_first(
      vm, [](const Technique&) { return true; }, wish, passed_over);
}

/// Instead of a technique that would halt the guest while much is read: the one that halts it least.
Result<Opened> open_copying(const Vm& vm, const TechniqueWish& wish, PassedOver* passed_over) {
  const TechniqueWish wanted{.consistent = true,
                             .no_injection = wish.no_injection,
                             .copy = true,
                             .max_halt = wish.max_halt};
  const auto is_brief = [](const Technique& technique) {
    return technique.abilities.copies && !technique.abilities.halts;
  };
  if (!wish.no_injection) {
    auto opened = open_first(vm, is_brief, wanted, passed_over);
    if (opened) return opened;
  }
  return open_auto(vm, wanted, passed_over);
}

/// What was asked for by name need not give more than that, but for a copy where much is read.
Result<Opened> open_named(const Vm& vm, std::string_view name, const TechniqueWish& wish,
                          PassedOver* passed_over) {
  const TechniqueWish asked{.copy = wish.copy, .max_halt = wish.max_halt};
  const auto is_named = [&](const Technique& technique) { return names(name, technique); };
  const auto fits = [&](const Technique& technique) {
    return is_named(technique) && misfit(asked, technique).empty();
  };
  if (std::none_of(techniques.begin(), techniques.end(), is_named)) return no_such(name);
  auto opened = open_first(vm, is_named, asked, passed_over);
  if (opened || std::any_of(techniques.begin(), techniques.end(), fits)) return opened;
  return open_copying(vm, wish, passed_over);
}

}  // namespace

std::span<const Technique> all_techniques() { return techniques; }

std::vector<std::string_view> technique_names() {
  std::vector<std::string_view> all;
  for (const Technique& technique : techniques) all.push_back(technique.name);
  return all;
}

std::vector<TechniqueStatus> technique_status(const Vm& vm) {
  std::vector<TechniqueStatus> all;
  for (const Technique& technique : techniques) {
    TechniqueStatus status = describe(technique);
    // Opening changes nothing in the VM, so trying is the most honest test.
    if (auto memory = try_opening(vm, technique, {})) {
      status.usable = true;
    } else {
      status.reason = memory.error().message;
      status.hint = memory.error().hint;
    }
    all.push_back(std::move(status));
  }
  return all;
}

Result<TechniqueStatus> choose_technique(const Vm& vm, const TechniqueWish& wish) {
  VMSIGHT_TRY(Opened opened, open_auto(vm, wish, nullptr));
  return std::move(opened.status);
}

Result<std::unique_ptr<GuestMemory>> open_view(const Vm& vm, std::string_view name,
                                               const TechniqueWish& wish, PassedOver* passed_over) {
  VMSIGHT_TRY(Opened opened, name == "auto" ? open_auto(vm, wish, passed_over)
                                            : open_named(vm, name, wish, passed_over));
  return std::move(opened.memory);
}

}  // namespace vmsight
