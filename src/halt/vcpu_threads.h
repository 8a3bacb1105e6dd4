// Which threads of a QEMU process run the guest.
//
// Stopping more threads than those is always right for what is read, only ruder to QEMU; so where
// the vCPUs cannot be told from the others, all are taken, and `source` says so.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace vmsight {

struct VcpuThreads {
  std::vector<pid_t> tids;    // ascending, never empty
  std::vector<pid_t> others;  // all other threads, ascending
  /// How they were found: "thread names", "monitor", "kvm debugfs", "guest time", or
  /// "all threads" if nothing tells them apart (TCG without thread names and without a monitor).
  std::string_view source;
};

/// Looks at names first, and asks the monitor only where those are missing.
Result<VcpuThreads> find_vcpu_threads(const VmInfo& info);

/// The vCPU threads as they come and go.
class VcpuRoster {
 public:
  VcpuRoster(pid_t pid, VcpuThreads threads)
      : pid_(pid), tids_(std::move(threads.tids)), others_(std::move(threads.others)) {}

  /// Looks at the process again and gives the newcomers. A thread that is younger than the roster
  /// may be a vCPU that was plugged in, so it is taken for one, whatever it is. Those that ended
  /// are forgotten.
  Result<std::vector<pid_t>> update();
  const std::vector<pid_t>& tids() const { return tids_; }  // ascending

 private:
  pid_t pid_;
  std::vector<pid_t> tids_, others_;
};

/// Workers of the host's kernel (vhost, io_uring, KVM) are listed among QEMU's threads too, but
/// run no guest and may not be stoppable. False also if the thread has ended.
bool runs_user_code(pid_t pid, pid_t tid);

/// Whether QEMU gives this name to a vCPU's thread: "CPU 0/TCG", "CPU 1/KVM", "ALL CPUs/TCG".
bool is_vcpu_name(std::string_view comm);
/// The name of a thread that runs all vCPUs in turn (-accel tcg,thread=single).
bool is_shared_vcpu_name(std::string_view comm);

/// Fields of a /proc/PID/task/TID/stat line; nullopt if it is cut short.
struct ThreadStat {
  std::uint64_t flags = 0;       // field 9: PF_*
  std::uint64_t guest_time = 0;  // field 43: clock ticks spent running a guest, KVM only
};
std::optional<ThreadStat> parse_thread_stat(std::string_view stat);

/// thread-id of each element of what query-cpus-fast returned; nullopt if one has none.
std::optional<std::vector<pid_t>> parse_cpu_threads(const nlohmann::json& answer);

}  // namespace vmsight
