// The table of techniques: their names, whether they work here, and opening one by name.
#include "view/technique.h"

#include <array>

#include "view/copy_snapshot.h"
#include "view/halted.h"
#include "view/live_snap.h"
#include "view/techniques_of_qemu.h"

namespace vmsight {
namespace {

using std::chrono::milliseconds;

template <auto open>
Result<std::unique_ptr<GuestMemory>> never_halted(const Vm& vm, milliseconds) {
  return open(vm);
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
     .consistent = true,
     .pauses = true,
     .open = open_halted<open_live_map, open_ptrace_halter>},
    {.name = "halt-read:ptrace",
     .what = "process_vm_readv of any guest RAM, with the vCPU threads stopped by ptrace",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .consistent = true,
     .pauses = true,
     .open = open_halted<open_live_read, open_ptrace_halter>},
    {.name = "halt-map:stop",
     .what = "shared guest RAM mapped, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, some milliseconds; its clock stands too",
     .consistent = true,
     .pauses = true,
     .open = open_halted<open_live_map, open_stop_halter>},
    {.name = "halt-read:stop",
     .what = "process_vm_readv of any guest RAM, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, some milliseconds; its clock stands too",
     .consistent = true,
     .pauses = true,
     .open = open_halted<open_live_read, open_stop_halter>},
    {.name = "halt-map:freezer",
     .what = "shared guest RAM mapped, with the vCPU threads frozen in a cgroup",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .consistent = true,
     .pauses = true,
     .open = open_halted<open_live_map, open_freezer_halter>},
    {.name = "halt-read:freezer",
     .what = "process_vm_readv of any guest RAM, with the vCPU threads frozen in a cgroup",
     .cost = "the vCPUs stand while it is read, some milliseconds; the guest's clock runs on",
     .consistent = true,
     .pauses = true,
     .open = open_halted<open_live_read, open_freezer_halter>},
    {.name = "halt-snap:copy",
     .what = "all populated guest RAM copied, with the vCPU threads stopped by ptrace",
     .cost = "the vCPUs stand while all is copied, 10 ms and more for 100 MB; the clock runs on",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .copies_all = true,
     .open = open_copy_snapshot},
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
     .consistent = true,
     .pauses = true,
     .max_halt = max_interface,
     .open = open_gdbstub},
    {.name = "halt-interface:pmemsave",
     .what = "QMP pmemsave of each run of pages, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, some 0.5 ms a run of pages; its clock stands too",
     .consistent = true,
     .pauses = true,
     .max_halt = max_interface,
     .open = open_halted<open_monitor_pmemsave, open_stop_halter>},
    {.name = "halt-interface:xp",
     .what = "pages as text from the human monitor, with the guest stopped by QMP",
     .cost = "the guest stands while it is read, about 1 ms a page; its clock stands too",
     .consistent = true,
     .pauses = true,
     .max_halt = max_text_interface,
     .open = open_halted<open_monitor_xp, open_stop_halter>},
    {.name = "live-snap:uffd",
     .what = "guest RAM write-protected by a userfaultfd; pages are copied before they are written",
     .cost = "stands for some milliseconds; then each first write to a page waits for its copy",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .injects = true,
     .open = open_live_snap_uffd},
    {.name = "live-snap:fork",
     .what = "a stopped copy of the QEMU process, made by fork",
     .cost = "stands for some milliseconds; then each first write to a page is a page fault",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .injects = true,
     .open = open_live_snap_fork},
    {.name = "live-snap:background",
     .what = "QEMU's background snapshot into a file: the moment at its start",
     .cost = "a pause of milliseconds; each page's first write waits until the page is saved",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .open = open_live_snap_background},
    {.name = "live-snap:mapped-ram",
     .what = "QEMU's migration into a file with a place for each page: the moment at its end",
     .cost =
         "a pause of milliseconds at the end, and until we let it run on; dirty tracking before",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .open = open_live_snap_mapped_ram},
    {.name = "halt-snap:migrate",
     .what = "QEMU's migration into a file while the guest is stopped by QMP",
     .cost = "the guest stands while its populated RAM is written, 0.1 s and more for 100 MB",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .copies_all = true,
     .open = open_halt_snap_migrate},
    {.name = "halt-snap:pmemsave",
     .what = "QMP pmemsave of all guest RAM, with the guest stopped by QMP",
     .cost = "the guest stands while all of its RAM is written, holes too: seconds for a GiB",
     .consistent = true,
     .pauses = true,
     .copies = true,
     .copies_all = true,
     .open = open_halt_snap_pmemsave},
    {.name = "halt-snap:dump",
     .what = "dump-guest-memory into a file",
     .cost = "the guest stands while all of its RAM is written, holes too: seconds for a GiB",
     .consistent = true,
     .pauses = true,
     .copies = true,
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

bool names(std::string_view wanted, const Technique& technique) {
  return wanted == technique.name ||
         (technique.name.starts_with(wanted) && technique.name[wanted.size()] == ':');
}

/// What the wish is missing in this technique, or "".
std::string_view misfit(const TechniqueWish& wish, const Technique& technique) {
  if (wish.consistent && !technique.consistent) return "a view does not show one moment";
  if (wish.copy && technique.pauses && !technique.copies)
    return "the guest would be halted too long";
  if (wish.no_pause && technique.pauses) return "it stops the guest for a while";
  if (wish.no_injection && technique.injects) return "it runs system calls inside QEMU";
  return "";
}

TechniqueStatus describe(const Technique& technique) {
  return {.name = technique.name, .what = technique.what, .cost = technique.cost};
}

Error no_such(std::string_view name) {
  std::string all = "auto";
  for (const Technique& technique : techniques) all.append(", ").append(technique.name);
  return {.code = ErrorCode::usage,
          .message = fmt::format("open a view: no technique is called \"{}\"", name),
          .hint = "techniques: " + all};
}

/// Instead of a technique that would halt the guest while much is read: the one that halts it least.
Result<std::unique_ptr<GuestMemory>> open_copying_view(const Vm& vm, const TechniqueWish& wish,
                                                       std::vector<TechniqueStatus>* passed_over) {
  const TechniqueWish wanted{.consistent = true,
                             .no_injection = wish.no_injection,
                             .copy = true,
                             .max_halt = wish.max_halt};
  if (!wish.no_injection) {
    auto memory = open_view(vm, "live-snap", wanted, passed_over);
    if (memory) return memory;
  }
  return open_view(vm, "auto", wanted, passed_over);
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
    if (auto memory = technique.open(vm, max_halt_of(technique, vm, {}))) {
      status.usable = true;
    } else {
      status.reason = memory.error().message;
      status.hint = memory.error().hint;
    }
    all.push_back(std::move(status));
  }
  return all;
}

Result<std::unique_ptr<GuestMemory>> open_view(const Vm& vm, std::string_view name,
                                               const TechniqueWish& wish,
                                               std::vector<TechniqueStatus>* passed_over) {
  std::optional<Error> first;
  bool known = name == "auto";
  for (const Technique& technique : techniques) {
    if (name != "auto" && !names(name, technique)) continue;
    known = true;
    TechniqueStatus status = describe(technique);
    status.reason = misfit(name == "auto" ? wish : TechniqueWish{.copy = wish.copy}, technique);
    if (status.reason.empty()) {
      auto memory = technique.open(vm, max_halt_of(technique, vm, wish));
      if (memory) return memory;
      status.reason = memory.error().message;
      if (!first) first = std::move(memory).error();
    }
    if (passed_over != nullptr) passed_over->push_back(std::move(status));
  }
  if (first) return *std::move(first);
  if (!known) return no_such(name);
  if (name != "auto" && wish.copy) return open_copying_view(vm, wish, passed_over);
  return Error{.code = ErrorCode::unsupported,
               .message = "open a view: no technique gives all that was asked for",
               .hint = "drop one of --consistent, --no-pause, --no-injection"};
}

}  // namespace vmsight
