#include "halt/vcpu_threads.h"

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <functional>
#include <optional>

#include "base/os.h"
#include "host/option_list.h"
#include "host/process.h"
#include "qemu/monitor_questions.h"

namespace vmsight {
namespace {

/// A thread runs only in the kernel: include/linux/sched.h, PF_IO_WORKER, PF_USER_WORKER (6.4 and
/// later) and PF_KTHREAD.
bool is_kernel_worker(std::uint64_t flags) {
  constexpr std::uint64_t io_worker = 0x10, user_worker = 0x4000, kernel_thread = 0x200000;
  return (flags & (io_worker | user_worker | kernel_thread)) != 0;
}

std::optional<ThreadStat> thread_stat(pid_t pid, pid_t tid) {
  const auto text = read_proc_file(pid, fmt::format("task/{}/stat", tid));
  return text ? parse_thread_stat(*text) : std::nullopt;
}

std::vector<pid_t> select(const std::vector<pid_t>& threads,
                          const std::function<bool(pid_t)>& wanted) {
  std::vector<pid_t> chosen;
  std::copy_if(threads.begin(), threads.end(), std::back_inserter(chosen), wanted);
  return chosen;
}

/// 11 and later name their threads, older ones with -name debug-threads=on (as libvirt asks).
std::vector<pid_t> by_name(const VmInfo& info, const std::vector<pid_t>& threads) {
  bool shared = false;
  auto found = select(threads, [&](pid_t tid) {
    auto comm = read_proc_file(info.pid, fmt::format("task/{}/comm", tid));
    if (!comm) return false;
    const std::string_view name = std::string_view(*comm).substr(0, comm->find('\n'));
    shared = shared || is_shared_vcpu_name(name);
    return is_vcpu_name(name);
  });
  return shared || found.size() >= info.vcpus ? found : std::vector<pid_t>{};
}

/// A QEMU in a PID namespace of its own tells numbers that mean nothing here.
std::vector<pid_t> by_monitor(const VmInfo& info, const std::vector<pid_t>& threads) {
  auto monitor = connect_monitor(info);
  if (!monitor) return {};
  const auto answer = monitor->execute({"query-cpus-fast"});
  if (!answer) return {};
  const auto told = parse_cpu_threads(*answer);
  if (!told) return {};
  const bool known = std::includes(threads.begin(), threads.end(), told->begin(), told->end());
  return known ? *told : std::vector<pid_t>{};
}

std::vector<pid_t> vcpus_of_debug_directory(const std::string& path) {
  std::vector<pid_t> found;
  const Directory directory = list_directory(path);
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
    if (!std::string_view(entry->d_name).starts_with("vcpu")) continue;
    const std::unique_ptr<FILE, int (*)(FILE*)> file(
        ::fopen(fmt::format("{}/{}/pid", path, entry->d_name).c_str(), "re"), &::fclose);
    int tid = 0;
    if (file && ::fscanf(file.get(), "%d", &tid) == 1) found.push_back(tid);
  }
  return found;
}

/// /sys/kernel/debug/kvm/PID-FD/vcpuN/pid, where debugfs is mounted and readable.
std::vector<pid_t> by_debugfs(const VmInfo& info, const std::vector<pid_t>& threads) {
  constexpr const char* root = "/sys/kernel/debug/kvm";
  const std::string prefix = fmt::format("{}-", info.pid);
  std::vector<pid_t> found;
  const Directory directory = list_directory(root);
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
    if (!std::string_view(entry->d_name).starts_with(prefix)) continue;
    const auto vcpus = vcpus_of_debug_directory(fmt::format("{}/{}", root, entry->d_name));
    found.insert(found.end(), vcpus.begin(), vcpus.end());
  }
  std::sort(found.begin(), found.end());
  const bool known = std::includes(threads.begin(), threads.end(), found.begin(), found.end());
  return known && found.size() >= info.vcpus ? found : std::vector<pid_t>{};
}

/// Only vCPUs have time of a guest; one that never ran has none, and then they cannot be told.
std::vector<pid_t> by_guest_time(const VmInfo& info, const std::vector<pid_t>& threads) {
  auto found = select(threads, [&](pid_t tid) {
    const auto stat = thread_stat(info.pid, tid);
    return stat && stat->guest_time > 0;
  });
  return found.size() >= info.vcpus ? found : std::vector<pid_t>{};
}

}  // namespace

bool is_shared_vcpu_name(std::string_view comm) { return comm == "ALL CPUs/TCG"; }

bool is_vcpu_name(std::string_view comm) {
  if (is_shared_vcpu_name(comm)) return true;
  constexpr std::string_view prefix = "CPU ";
  if (!comm.starts_with(prefix)) return false;
  const auto slash = comm.find('/');
  if (slash == std::string_view::npos) return false;
  return parse_number(comm.substr(prefix.size(), slash - prefix.size())).has_value();
}

std::optional<ThreadStat> parse_thread_stat(std::string_view stat) {
  const auto name_end = stat.rfind(") ");
  if (name_end == std::string_view::npos) return std::nullopt;
  stat.remove_prefix(name_end + 2);
  ThreadStat found;
  constexpr int first = 3, flags = 9, guest_time = 43;
  for (int field = first; field <= guest_time; ++field) {
    const std::string_view word = stat.substr(0, stat.find_first_of(" \n"));
    if (word.empty()) return std::nullopt;
    if (field == flags || field == guest_time) {
      const auto value = parse_number(word);
      if (!value) return std::nullopt;
      (field == flags ? found.flags : found.guest_time) = *value;
    }
    stat.remove_prefix(std::min(word.size() + 1, stat.size()));
  }
  return found;
}

std::optional<std::vector<pid_t>> parse_cpu_threads(const nlohmann::json& answer) {
  if (!answer.is_array() || answer.empty()) return std::nullopt;
  std::vector<pid_t> tids;
  for (const auto& cpu : answer) {
    const auto tid = cpu.is_object() ? cpu.find("thread-id") : cpu.end();
    if (!cpu.is_object() || tid == cpu.end() || !tid->is_number_integer()) return std::nullopt;
    tids.push_back(tid->get<pid_t>());
  }
  // With thread=single all vCPUs name the same thread.
  std::sort(tids.begin(), tids.end());
  tids.erase(std::unique(tids.begin(), tids.end()), tids.end());
  return tids;
}

bool runs_user_code(pid_t pid, pid_t tid) {
  const auto stat = thread_stat(pid, tid);
  return stat && !is_kernel_worker(stat->flags);
}

Result<VcpuThreads> find_vcpu_threads(const VmInfo& info) {
  VMSIGHT_TRY(const std::vector<pid_t> threads, list_threads(info.pid));
  VcpuThreads found{by_name(info, threads), {}, "thread names"};
  if (found.tids.empty()) found = {by_monitor(info, threads), {}, "monitor"};
  const bool kvm = info.accelerator == Accelerator::kvm;
  if (found.tids.empty() && kvm) found = {by_debugfs(info, threads), {}, "kvm debugfs"};
  if (found.tids.empty() && kvm) found = {by_guest_time(info, threads), {}, "guest time"};
  if (found.tids.empty()) {
    const auto stoppable = [&](pid_t tid) { return runs_user_code(info.pid, tid); };
    found = {select(threads, stoppable), {}, "all threads"};
  }
  std::set_difference(threads.begin(), threads.end(), found.tids.begin(), found.tids.end(),
                      std::back_inserter(found.others));
  return found;
}

Result<std::vector<pid_t>> VcpuRoster::update() {
  const auto contains = [](const std::vector<pid_t>& sorted, pid_t tid) {
    return std::binary_search(sorted.begin(), sorted.end(), tid);
  };
  VMSIGHT_TRY(const std::vector<pid_t> now, list_threads(pid_));
  std::vector<pid_t> fresh, tids, others;
  for (const pid_t tid : now) {
    if (contains(others_, tid)) {
      others.push_back(tid);
    } else if (contains(tids_, tid)) {
      tids.push_back(tid);
    } else if (runs_user_code(pid_, tid)) {
      tids.push_back(tid);
      fresh.push_back(tid);
    } else {
      others.push_back(tid);
    }
  }
  tids_ = std::move(tids);
  others_ = std::move(others);
  return fresh;
}

}  // namespace vmsight
