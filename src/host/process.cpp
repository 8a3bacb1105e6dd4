#include "host/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <thread>

#include "base/text.h"
#include "host/host_maps.h"
#include "host/option_list.h"

namespace vmsight {
namespace {

Error gone(pid_t pid) {
  return {.code = ErrorCode::vm_gone, .message = fmt::format("process {} has ended", pid)};
}

Error proc_error(int err, pid_t pid, std::string_view name) {
  if (err == ENOENT || err == ESRCH) return gone(pid);
  Error error = os_error(err, fmt::format("read /proc/{}/{}", pid, name));
  if (error.code == ErrorCode::permission) {
    error.hint = "run vmsight as root, or as the user that runs QEMU";
  }
  return error;
}

std::string_view base_name(std::string_view path) {
  constexpr std::string_view deleted = " (deleted)";
  if (path.ends_with(deleted)) path.remove_suffix(deleted.size());
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

bool is_qemu_name(std::string_view name) {
  return name.starts_with("qemu-system-x86_64") || name.starts_with(".qemu-system-x86_64") ||
         name == "qemu-kvm" || name == "kvm" || name == ".qemu-kvm-wrapped";
}

/// An emulator of another architecture, by its name.
bool is_other_emulator(std::string_view executable) {
  const std::string_view name = base_name(executable);
  return name.starts_with("qemu-system-") || name.starts_with(".qemu-system-");
}

/// /proc/PID/exe of another user cannot be read, its cmdline can.
bool looks_like_qemu(pid_t pid) {
  constexpr std::size_t enough = 4096;
  auto cmdline = read_proc_file(pid, "cmdline", enough);
  if (!cmdline) return false;
  const auto arguments = split_arguments(*cmdline);
  return !arguments.empty() && is_qemu(arguments[0], arguments);
}

/// QEMU marks all of a guest's memory MADV_DONTFORK, which few programs know.
bool has_guest_memory(pid_t pid) {
  const auto smaps = read_proc_file(pid, "smaps");
  if (!smaps) return false;
  const auto maps = parse_maps(*smaps);
  return maps && std::any_of(maps->begin(), maps->end(), [](const HostMapping& mapping) {
           constexpr std::uint64_t smallest_ram = 1u << 20;
           return mapping.dont_fork && mapping.writable && mapping.size() >= smallest_ram;
         });
}

/// For a program under a name that says nothing: dearer questions only to those that pass cheaper ones.
bool runs_a_vm(pid_t pid) {
  constexpr std::size_t enough = 16u << 10;
  const auto cmdline = read_proc_file(pid, "cmdline", enough);
  if (!cmdline || !has_emulator_arguments(split_arguments(*cmdline))) return false;
  const auto kvm =
      has_descriptor(pid, [](std::string_view link) { return link == "anon_inode:kvm-vm"; });
  return kvm.value_or(false) || has_guest_memory(pid);
}

bool is_emulator(pid_t pid, std::string_view executable) {
  if (is_dynamic_loader(executable) && looks_like_qemu(pid)) return true;
  if (is_qemu(executable, {})) return true;
  return !is_other_emulator(executable) && runs_a_vm(pid);
}

void classify(pid_t pid, QemuProcesses& found) {
  auto executable = read_proc_link(pid, "exe");
  if (!executable) {
    if (executable.error().code == ErrorCode::permission && looks_like_qemu(pid)) {
      found.unreadable.push_back(pid);
    }
    return;  // a kernel thread, or it ended meanwhile
  }
  if (is_emulator(pid, *executable)) found.readable.push_back(pid);
}

}  // namespace

Result<std::string> read_proc_file(pid_t pid, std::string_view name, std::size_t limit) {
  const UniqueFd fd(::open(fmt::format("/proc/{}/{}", pid, name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return proc_error(errno, pid, name);
  std::string text;
  constexpr std::size_t chunk = 64u << 10;
  while (text.size() < limit) {
    const std::size_t filled = text.size(), want = std::min(chunk, limit - filled);
    text.resize(filled + want);
    const ssize_t got = ::read(fd.get(), text.data() + filled, want);
    if (got < 0) return proc_error(errno, pid, name);
    text.resize(filled + static_cast<std::size_t>(got));
    if (got == 0) break;
  }
  return text;
}

Result<std::string> read_proc_link(pid_t pid, std::string_view name) {
  char target[PATH_MAX];
  const ssize_t length =
      ::readlink(fmt::format("/proc/{}/{}", pid, name).c_str(), target, sizeof target);
  if (length < 0) return proc_error(errno, pid, name);
  return std::string(target, static_cast<std::size_t>(length));
}

std::optional<std::string_view> parse_status_field(std::string_view status, std::string_view name) {
  while (!status.empty()) {
    std::string_view line = status.substr(0, status.find('\n'));
    status.remove_prefix(std::min(line.size() + 1, status.size()));
    if (!line.starts_with(name) || !line.substr(name.size()).starts_with(':')) continue;
    line.remove_prefix(name.size() + 1);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    return line;
  }
  return std::nullopt;
}

Result<std::vector<pid_t>> list_threads(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/task", pid);
  const Directory directory = list_directory(path);
  if (!directory && errno != ENOENT) return os_error(errno, "list " + path);
  std::vector<pid_t> tids;
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
    if (const auto tid = parse_number(entry->d_name)) tids.push_back(static_cast<pid_t>(*tid));
  }
  if (tids.empty()) return gone(pid);
  std::sort(tids.begin(), tids.end());
  return tids;
}

pid_t tracer_of(pid_t pid, pid_t tid) {
  const auto status = read_proc_file(pid, fmt::format("task/{}/status", tid));
  const auto tracer = status ? parse_status_field(*status, "TracerPid") : std::nullopt;
  return static_cast<pid_t>(tracer ? parse_number(*tracer).value_or(0) : 0);
}

std::optional<bool> has_descriptor(pid_t pid,
                                   const std::function<bool(std::string_view link)>& wanted) {
  const Directory directory = list_directory(fmt::format("/proc/{}/fd", pid));
  if (!directory) return std::nullopt;
  while (const dirent* entry = ::readdir(directory.get())) {
    const auto link = read_proc_link(pid, fmt::format("fd/{}", entry->d_name));
    if (link && wanted(*link)) return true;
  }
  return false;
}

Result<std::uint64_t> parse_start_time(std::string_view stat) {
  const Error bad{.code = ErrorCode::bad_data, .message = "read /proc/PID/stat: no start time"};
  const auto name_end = stat.rfind(')');
  if (name_end == std::string_view::npos) return bad;
  stat.remove_prefix(name_end + 1);
  constexpr int fields_before = 22 - 2 - 1;  // pid and name are behind us
  for (int field = 0; field <= fields_before; ++field) {
    const auto space = stat.find(' ');
    if (space == std::string_view::npos) return bad;
    stat.remove_prefix(space + 1);
  }
  const auto value = parse_number(stat.substr(0, stat.find(' ')));
  if (!value) return bad;
  return *value;
}

Result<ProcessId> identify(pid_t pid) {
  VMSIGHT_TRY(const std::string stat, read_proc_file(pid, "stat"));
  VMSIGHT_TRY(const std::uint64_t start_time, parse_start_time(stat));
  return ProcessId{pid, start_time};
}

bool is_stopped(pid_t pid) {
  const auto deadline = std::chrono::steady_clock::now() + tracer_time;
  std::optional<std::string> standing_since;
  while (true) {
    const auto status = read_proc_file(pid, "status");
    const auto state = status ? parse_status_field(*status, "State") : std::nullopt;
    if (!state || (!state->starts_with('T') && !state->starts_with('t'))) return false;
    if (state->starts_with('T')) return true;
    const std::string stops(parse_status_field(*status, "voluntary_ctxt_switches").value_or(""));
    if (standing_since.value_or(stops) != stops) return false;  // it ran meanwhile
    if (std::chrono::steady_clock::now() > deadline) return true;
    standing_since = stops;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

Result<uid_t> process_owner(pid_t pid) {
  VMSIGHT_TRY(const std::string status, read_proc_file(pid, "status"));
  const auto uids = parse_status_field(status, "Uid");  // real, effective, saved, file system
  const auto real = uids ? parse_number(uids->substr(0, uids->find('\t'))) : std::nullopt;
  if (!real) return Error{.code = ErrorCode::bad_data, .message = "read /proc/PID/status: no Uid"};
  return static_cast<uid_t>(*real);
}

std::vector<std::string> split_arguments(std::string_view cmdline) {
  const std::vector<std::string_view> arguments = split_at(cmdline, '\0');
  return {arguments.begin(), arguments.end()};
}

bool is_dynamic_loader(std::string_view executable) {
  const std::string_view name = base_name(executable);
  return name.starts_with("ld-") || name.starts_with("ld.so");
}

bool is_qemu(std::string_view executable, const std::vector<std::string>& arguments) {
  if (is_qemu_name(base_name(executable))) return true;
  if (!is_dynamic_loader(executable)) return false;
  // ld.so [--library-path DIR ...] /path/qemu-system-x86_64 ...
  constexpr std::size_t loader_options = 12;
  const std::size_t end = std::min(arguments.size(), loader_options);
  return std::any_of(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(end),
                     [](const std::string& a) { return is_qemu_name(base_name(a)); });
}

bool has_emulator_arguments(const std::vector<std::string>& arguments) {
  constexpr std::array<std::string_view, 5> certain = {"machine", "accel", "enable-kvm", "smp",
                                                       "nodefaults"};
  constexpr std::array<std::string_view, 11> likely = {
      "M", "m", "cpu", "device", "drive", "object", "chardev", "qmp", "display", "name", "kernel"};
  unsigned sure = 0, maybe = 0;
  for (std::string_view word : arguments) {
    if (!word.starts_with('-')) continue;
    word.remove_prefix(word.starts_with("--") ? 2 : 1);
    sure += std::count(certain.begin(), certain.end(), word) > 0;
    maybe += std::count(likely.begin(), likely.end(), word) > 0;
  }
  return sure > 0 || maybe > 1;
}

Result<QemuProcesses> find_qemu_processes() {
  const Directory directory = list_directory("/proc");
  if (!directory) return os_error(errno, "list /proc");
  QemuProcesses found;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (const auto pid = parse_number(entry->d_name)) classify(static_cast<pid_t>(*pid), found);
  }
  std::sort(found.readable.begin(), found.readable.end());
  return found;
}

Result<UniqueFd> open_pidfd(const ProcessId& id) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, id.pid, 0)));
  if (!pidfd) return proc_error(errno, id.pid, "");
  // The PID may have been reused between the listing and the open: compare once it is held.
  VMSIGHT_TRY(const ProcessId now, identify(id.pid));
  if (now.start_time != id.start_time) return gone(id.pid);
  return pidfd;
}

bool has_ended(const ProcessId& id, int patience_ms) {
  const auto process = open_pidfd(id);
  if (!process) return process.error().code == ErrorCode::vm_gone;
  pollfd event{.fd = process->get(), .events = POLLIN, .revents = 0};
  return ::poll(&event, 1, patience_ms) > 0;
}

bool thread_has_ended(pid_t tid) {
  const auto status = read_proc_file(tid, "status");
  if (!status) return status.error().code == ErrorCode::vm_gone;
  const auto state = parse_status_field(*status, "State");
  return state && (state->starts_with('Z') || state->starts_with('X'));
}

Result<void> check_pidfd(int pidfd, pid_t pid) {
  pollfd event{.fd = pidfd, .events = POLLIN, .revents = 0};
  const int ready = ::poll(&event, 1, 0);
  if (ready < 0 && errno != EINTR) return os_error(errno, "poll pidfd");
  if (ready > 0) return gone(pid);  // also as a zombie
  return {};
}

}  // namespace vmsight
