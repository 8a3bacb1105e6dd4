#include "host/vm_info.h"

#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <optional>

#include "host/libvirt.h"
#include "host/option_list.h"
#include "host/process_paths.h"

namespace vmsight {
namespace {

/// With alternatives ("-accel kvm -accel tcg"), or none given, only its descriptors tell which
/// one QEMU took.
Accelerator accelerator_of(pid_t pid, const CommandLine& line) {
  if (line.accelerators.size() == 1) return line.accelerators.front();
  const auto kvm =
      has_descriptor(pid, [](std::string_view link) { return link == "anon_inode:kvm-vm"; });
  if (!kvm) return Accelerator::unknown;
  return *kvm ? Accelerator::kvm : Accelerator::tcg;
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat first {
  }, second{};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bool answers_to(const VmInfo& vm, std::string_view spec) {
  if (spec == vm.name || (!vm.uuid.empty() && spec == vm.uuid)) return true;
  return spec.find('/') != std::string_view::npos &&
         std::any_of(vm.qmp_sockets.begin(), vm.qmp_sockets.end(), [&](const std::string& path) {
           return path == spec || same_file(path, std::string(spec));
         });
}

std::string names_of(const std::vector<VmInfo>& vms) {
  std::string names;
  for (const VmInfo& vm : vms) {
    names += fmt::format("{}{} (pid {})", names.empty() ? "" : ", ", vm.name, vm.pid);
  }
  return names;
}

/// The VM of another user with this name: its command line can be read, nothing else.
std::optional<Error> hidden_vm(std::string_view spec) {
  const auto processes = find_qemu_processes();
  if (!processes) return std::nullopt;
  for (const pid_t pid : processes->unreadable) {
    const auto cmdline = read_proc_file(pid, "cmdline");
    if (!cmdline) continue;
    const auto line = parse_command_line(split_arguments(*cmdline));
    if (!line || (line->name != spec && line->uuid != spec)) continue;
    return Error{
        .code = ErrorCode::permission,
        .message = fmt::format("find VM \"{}\": process {} belongs to another user", spec, pid),
        .hint = "run vmsight as root, or as the user that runs QEMU"};
  }
  return std::nullopt;
}

bool has_vm_arguments(const VmInfo& info) {
  return is_qemu(info.executable, info.arguments) || has_emulator_arguments(info.arguments);
}

/// Whether nobody but us, root or the system's libvirt can have started it under its name.
bool is_trusted(const VmInfo& vm) {
  return vm.uid == 0 || vm.uid == ::geteuid() || is_system_domain(vm.pid);
}

std::string claimants(const std::vector<VmInfo>& vms) {
  std::string names;
  for (const VmInfo& vm : vms) {
    names += fmt::format("{}process {} of user {}", names.empty() ? "" : ", ", vm.pid, vm.uid);
  }
  return names;
}

/// The VM that is meant, of those that answer to a name; none if that cannot be told.
std::optional<VmInfo> most_trusted(std::vector<VmInfo> matches) {
  const auto others = std::stable_partition(matches.begin(), matches.end(), &is_trusted);
  const auto trusted = others - matches.begin();
  if (trusted > 1 || (trusted == 0 && matches.size() != 1)) return std::nullopt;
  VmInfo chosen = std::move(matches.front());
  matches.erase(matches.begin());
  chosen.passed_over = claimants(matches);
  return chosen;
}

/// What a path that is no VM's socket is.
Error no_such_path(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    Error error = os_error(errno, "open " + path);
    if (error.code == ErrorCode::os) error.code = ErrorCode::not_found;
    error.hint = "a VM is named by its name, PID, UUID or QMP socket; an image by its path";
    return error;
  }
  return {.code = ErrorCode::not_found,
          .message = fmt::format("find VM \"{}\": it is neither the QMP socket of a running VM nor "
                                 "a memory image",
                                 path),
          .hint = "`vmsight list --json` shows the sockets of running VMs"};
}

Error no_such_vm(std::string_view spec, const VmList& all) {
  Error error{.code = ErrorCode::not_found,
              .message = fmt::format("find VM \"{}\": no such VM", spec)};
  error.hint = all.vms.empty() ? "no QEMU process of ours runs on this host"
                               : "running VMs: " + names_of(all.vms);
  if (all.unreadable > 0) {
    error.hint += fmt::format("; {} more belong to other users: try as root", all.unreadable);
  }
  return error;
}

}  // namespace

std::uint64_t memory_of(const Vm& vm) {
  std::uint64_t total = 0;
  for (const RamBlock& block : vm.blocks()) total += block.size;
  return total;
}

bool may_have_plugged_memory(const VmInfo& info) {
  const auto line = parse_command_line(info.arguments);
  return line && (!line->dimms.empty() || line->maximum_memory_bytes > line->memory_bytes);
}

Result<VmInfo> describe_vm(pid_t pid) {
  VmInfo info;
  VMSIGHT_TRY(const ProcessId id, identify(pid));
  info.pid = pid;
  info.start_time = id.start_time;
  VMSIGHT_TRY(const std::string cmdline, read_proc_file(pid, "cmdline"));
  info.arguments = split_arguments(cmdline);
  if (info.arguments.empty()) {
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("process {} is not a QEMU VM", pid)};
  }
  VMSIGHT_TRY(info.uid, process_owner(pid));
  VMSIGHT_TRY(info.executable, read_proc_link(pid, "exe"));
  VMSIGHT_TRY(const CommandLine line, parse_command_line(info.arguments));
  info.uuid = line.uuid;
  info.machine = line.machine;
  info.vcpus = line.vcpus;
  info.memory_bytes = line.memory_bytes;
  info.libvirt = line.libvirt;
  info.accelerator = accelerator_of(pid, line);
  for (const std::string& path : line.qmp_sockets) {
    info.qmp_sockets.push_back(path_of_process(pid, path));
  }
  info.name = !line.name.empty() ? line.name : libvirt_domain_of(pid).value_or("");
  if (info.name.empty()) info.name = fmt::format("qemu-{}", pid);
  return info;
}

Result<VmList> list_vms() {
  VMSIGHT_TRY(const QemuProcesses processes, find_qemu_processes());
  VmList list;
  list.unreadable = static_cast<unsigned>(processes.unreadable.size());
  for (const pid_t pid : processes.readable) {
    auto info = describe_vm(pid);
    if (info) {
      list.vms.push_back(std::move(*info));
    } else if (info.error().code == ErrorCode::permission) {
      ++list.unreadable;
    }  // else it ended meanwhile
  }
  return list;
}

namespace {

/// A PID can be claimed by nobody else, so it comes before any name that reads like one.
std::optional<VmInfo> by_pid(const VmList& all, std::string_view spec) {
  const auto found = std::find_if(all.vms.begin(), all.vms.end(),
                                  [&](const VmInfo& vm) { return spec == std::to_string(vm.pid); });
  return found == all.vms.end() ? std::nullopt : std::optional(*found);
}

/// A process that looks like no VM is believed to be one if the user gives its PID, and it has a
/// VM's arguments.
Result<VmInfo> by_word_of_user(std::string_view spec, const VmList& all) {
  auto pid = parse_number(spec);
  if (!pid) pid = libvirt_pid_of(spec);
  if (!pid || *pid > 0x7fffffff) return no_such_vm(spec, all);
  auto info = describe_vm(static_cast<pid_t>(*pid));
  if (!info && info.error().code == ErrorCode::vm_gone) return no_such_vm(spec, all);
  if (info && !has_vm_arguments(*info)) {
    return Error{
        .code = ErrorCode::not_found,
        .message = fmt::format("process {} runs {}, which is not QEMU", *pid, info->executable),
        .hint = "`vmsight list` shows the VMs of this host"};
  }
  return info;
}

}  // namespace

Result<VmInfo> find_same_vm(const ProcessId& vm) {
  VMSIGHT_TRY(VmInfo info, find_vm(std::to_string(vm.pid)));
  if (info.start_time == vm.start_time) return info;
  return Error{.code = ErrorCode::vm_gone, .message = fmt::format("process {} has ended", vm.pid)};
}

Result<VmInfo> find_vm(std::string_view spec) {
  VMSIGHT_TRY(VmList all, list_vms());
  if (auto found = by_pid(all, spec)) return *std::move(found);
  std::vector<VmInfo> matches;
  std::copy_if(all.vms.begin(), all.vms.end(), std::back_inserter(matches),
               [&](const VmInfo& vm) { return answers_to(vm, spec); });
  if (!matches.empty()) {
    if (auto found = most_trusted(matches)) return *std::move(found);
    return Error{.code = ErrorCode::ambiguous,
                 .message = fmt::format("find VM \"{}\": {}", spec, claimants(matches)),
                 .hint = "name one by its pid"};
  }
  if (all.unreadable > 0) {
    if (auto hidden = hidden_vm(spec)) return *std::move(hidden);
  }
  if (spec.find('/') != std::string_view::npos) return no_such_path(std::string(spec));
  return by_word_of_user(spec, all);
}

}  // namespace vmsight
