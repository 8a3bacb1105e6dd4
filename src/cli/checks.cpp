#include "cli/checks.h"

#include <sys/uio.h>
#include <unistd.h>
#include <fstream>

#include "cli/attach.h"
#include "cli/own_process.h"
#include "render/format.h"
#include "sandbox/sandbox.h"
#include "undo/recovery.h"
#include "vmsight/probe.h"

namespace vmsight {
namespace {

std::optional<int> setting(const char* path) {
  std::ifstream file(path);
  int value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

Check check_vms() {
  Check check{.name = "vms", .what = "QEMU processes that can be looked at"};
  const auto list = list_vms();
  if (!list) {
    check.reason = list.error().message;
    check.hint = list.error().hint;
    return check;
  }
  check.works = !list->vms.empty();
  check.reason = fmt::format("{} found", list->vms.size());
  if (list->unreadable > 0) {
    check.reason += fmt::format(", {} more that we lack the rights for", list->unreadable);
    check.hint = "run as root, or as the user that runs QEMU";
  } else if (list->vms.empty()) {
    check.hint = "start one; lab/vmlab in vmsight's sources boots test guests";
  }
  return check;
}

/// The system call that live-read is made of, tried on ourselves.
Check check_memory_reads() {
  Check check{.name = "memory reads", .what = "process_vm_readv, which live-read uses"};
  int from = 1, to = 0;
  const iovec local{&to, sizeof to}, remote{&from, sizeof from};
  check.works = ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) == sizeof to;
  if (check.works) return check;
  check.reason = os_error(errno, "process_vm_readv").message;
  check.hint = "a container's seccomp profile may forbid it: allow it, or run on the host";
  return check;
}

Check check_rights() {
  Check check{.name = "rights", .what = "reading the memory of other processes"};
  const int scope = setting("/proc/sys/kernel/yama/ptrace_scope").value_or(0);
  check.works = ::geteuid() == 0 || scope == 0;
  if (::geteuid() == 0) {
    check.reason = "running as root: all VMs";
  } else {
    check.reason =
        scope == 0 ? "VMs of the same user" : fmt::format("Yama's ptrace_scope is {}", scope);
    check.hint = "run as root to see all VMs";
  }
  return check;
}

Check check_sandbox() {
  const SandboxSupport support = sandbox_support();
  return {.name = "sandbox",
          .what = "a guest's memory is interpreted without rights",
          .works = support.works,
          .reason = support.what,
          .hint = support.works ? "" : "it is interpreted with all rights of this user"};
}

Check check_cache() {
  Check check{.name = "cache", .what = "what was learnt about kernels makes the next start faster"};
  const std::string directory = default_cache_directory();
  if (directory.empty()) {
    check.reason = "neither XDG_CACHE_HOME nor HOME is set";
    check.hint = "set one of them";
    return check;
  }
  // The deepest folder that exists decides whether the rest can be made.
  std::string place = directory;
  while (::access(place.c_str(), F_OK) != 0 && place.rfind('/') > 0) place.resize(place.rfind('/'));
  check.works = ::access(place.c_str(), W_OK) == 0;
  check.reason = directory;
  if (!check.works) {
    check.reason += " cannot be written";
    check.hint = "set XDG_CACHE_HOME to a folder that can";
  }
  return check;
}

Check check_kvm() {
  Check check{.name = "kvm",
              .what = "hardware virtualisation for guests (vmsight itself needs none)"};
  check.works = ::access("/dev/kvm", R_OK | W_OK) == 0;
  if (check.works) return check;
  check.reason = os_error(errno, "/dev/kvm").message;
  check.hint = "guests run emulated (TCG); vmsight sees into both";
  return check;
}

Check check_libvirt() {
  Check check{.name = "libvirt", .what = "names of libvirt domains"};
  check.works = ::access("/run/libvirt/qemu", F_OK) == 0;
  check.reason =
      check.works ? "found" : "no libvirt daemon runs here: names come from QEMU's -name";
  return check;
}

Check check_monitor(Vm& vm) {
  Check check{.name = "monitor",
              .what = "QMP: RAM layout, registers and run state from QEMU itself"};
  check.reason = vm.monitor_note();
  check.works = check.reason.empty();
  if (!check.works) check.hint = "vmsight derives the RAM layout instead and works without";
  return check;
}

Check check_registers(Vm& vm) {
  Check check{.name = "registers", .what = "vCPU registers: tell the live kernel from stale ones"};
  const auto registers = vm.registers();
  check.works = registers.has_value();
  if (registers) {
    check.reason = fmt::format("{} vCPUs", registers->size());
  } else {
    check.reason = registers.error().message;
    check.hint = registers.error().hint;
  }
  return check;
}

struct Ability {
  bool has = false;
  std::string_view name;
};
std::vector<std::string_view> only_had(std::initializer_list<Ability> abilities) {
  std::vector<std::string_view> names;
  for (const Ability& ability : abilities) {
    if (ability.has) names.push_back(ability.name);
  }
  return names;
}

std::vector<std::string_view> names_of(const TechniqueAbilities& can) {
  return only_had({{can.consistent, "consistent"},
                   {can.pauses, "pauses"},
                   {can.halts, "halts"},
                   {can.copies, "copies"},
                   {can.injects, "injects"}});
}

std::vector<std::string_view> names_of(const EngineAbilities& can) {
  return only_had({{can.any_instruction, "any_instruction"},
                   {can.user_sites, "user_sites"},
                   {can.return_sites, "return_sites"},
                   {can.stops_guest, "stops_guest"},
                   {can.refuses_calls, "refuses_calls"}});
}

/// A technique of views, or an engine of probes.
template <typename Status>
Check check_of(const Status& status, const std::string& name) {
  return {.name = name,
          .what = std::string(status.what),
          .works = status.usable,
          .reason = status.usable ? fmt::format("costs the guest: {}", status.cost) : status.reason,
          .hint = status.hint,
          .abilities = names_of(status.abilities)};
}

/// What the techniques and engines of a VM say of themselves: each is asked once.
struct Ways {
  const Vm& vm;
  std::vector<TechniqueStatus> techniques = technique_status(vm);
  std::vector<EngineStatus> engines = engine_status(vm);
};

/// Which technique gives what is wished for, without disturbing the guest.
Check check_wish(const Ways& ways, std::string name, std::string what, const TechniqueWish& wish) {
  Check check{.name = std::move(name), .what = std::move(what)};
  const auto chosen = choose_technique(ways.vm, wish);
  check.works = chosen.has_value();
  if (chosen) {
    check.reason = fmt::format("{}; costs the guest: {}", chosen->name, chosen->cost);
    check.abilities = names_of(chosen->abilities);
  } else {
    check.reason = chosen.error().message;
    check.hint =
        wish.consistent && wish.no_pause
            ? "verbs that read states try to prove one moment all the same: --consistent --no-pause"
            : chosen.error().hint;
  }
  return check;
}

Check check_probes(const Ways& ways) {
  Check check{.name = "probe", .what = "being told when its kernel or its programs pass a place"};
  for (const EngineStatus& status : ways.engines) {
    check.works = status.usable;
    check.reason = status.usable ? fmt::format("engine {}: {}; costs the guest: {}",
                                               status.abilities.name, status.what, status.cost)
                                 : status.reason;
    check.hint = status.hint;
    if (status.usable) check.abilities = names_of(status.abilities);
    if (status.usable) break;
  }
  return check;
}

Check check_layout(const Vm& vm) {
  Check check{.name = "ram", .what = "where the guest's RAM is"};
  check.works = !vm.ram().ranges().empty();
  check.reason =
      fmt::format("{} in {} ranges, {} by the {}", byte_size(vm.ram().total_bytes()),
                  vm.ram().ranges().size(), vm.ram_source() == "monitor" ? "told" : "derived",
                  vm.ram_source() == "monitor" ? "monitor" : "command line and maps");
  if (const std::string note = vm.ram_note(); !note.empty()) check.reason += "; " + note;
  return check;
}

std::vector<Check> summarize(const Ways& ways) {
  return {check_wish(ways, "read", "its processes, files, sockets ...", {}),
          check_wish(ways, "one moment", "a view in which nothing moved", {.consistent = true}),
          check_wish(ways, "without pause", "one moment, and the guest is not halted",
                     {.consistent = true, .no_pause = true}),
          check_probes(ways)};
}

std::vector<Check> list_all(Vm& vm, const Ways& ways) {
  std::vector<Check> checks = {check_layout(vm), check_monitor(vm), check_registers(vm)};
  for (const TechniqueStatus& status : ways.techniques) {
    checks.push_back(check_of(status, std::string(status.name)));
  }
  for (const EngineStatus& status : ways.engines) {
    checks.push_back(check_of(status, fmt::format("probes by {}", status.abilities.name)));
  }
  return checks;
}

}  // namespace

std::vector<Check> check_host() {
  return {check_vms(),   check_rights(), check_memory_reads(), check_sandbox(),
          check_cache(), check_kvm(),    check_libvirt()};
}

VmChecks check_vm(Vm& vm, bool whole) {
  const Ways ways{vm};
  VmChecks checks{.summary = summarize(ways)};
  if (whole) checks.table = list_all(vm, ways);
  return checks;
}

std::optional<Check> check_paused(Vm& vm) {
  const VmInfo& info = vm.info();
  const auto state = vm.run_state();
  std::optional<Check> check;
  for (const Record& record : changes_on_purpose({info.pid, info.start_time})) {
    if (state && *state == "running") {  // somebody has resumed it since
      static_cast<void>(JournalEntry::remove_record(record.path));
      continue;
    }
    const auto text = [&](const char* name) {
      const auto& payload = record.change.payload;
      const auto value = payload.is_object() ? payload.value(name, Json()) : Json();
      return value.is_string() ? value.get<std::string>() : std::string("?");
    };
    check = {.name = "runs",
             .what = "the guest runs",
             .reason = fmt::format(
                 "{} paused it at {}{}", text("by"), text("time"),
                 state ? "" : "; whether it runs again is not known: " + state.error().message),
             .hint = "`cont` in QEMU's monitor, or `virsh resume`, lets it go on"};
  }
  return check;
}

namespace {

Result<std::string> read_banner(const CommonOptions& options) {
  std::string banner;
  VMSIGHT_TRY_VOID(with_guest(options, [&](Guest& guest) {
    banner = guest.kernel->banner();
    return Result<void>();
  }));
  return banner;
}

}  // namespace

Check check_kernel(const CommonOptions& options) {
  Check check{.name = "kernel", .what = "a Linux kernel that can be read"};
  const auto found = in_own_process([&] { return read_banner(options); });
  check.works = found.has_value();
  if (found) {
    check.reason = *found;
  } else {
    check.reason = found.error().message;
    check.hint = found.error().hint;
  }
  return check;
}

}  // namespace vmsight
