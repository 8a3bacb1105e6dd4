// What looking into a guest costs its host: CPU time and memory, ours and QEMU's.
#pragma once

#include <sys/types.h>
#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace vmsight {

/// CPU time used so far. Only differences mean something.
struct CpuTimes {
  std::uint64_t own_ns = 0;   // this process, and its children that have ended
  std::uint64_t qemu_ns = 0;  // all of QEMU's threads, those that have ended included
  std::uint64_t vcpu_ns = 0;  // of these the vCPU threads; 0 if they cannot be told apart
};

/// Reads the CPU times of one QEMU process.
class CpuMeter {
 public:
  /// `vcpus`: the threads that run the guest; empty if they cannot be told from the others.
  CpuMeter(pid_t qemu, std::vector<pid_t> vcpus) : qemu_(qemu), vcpus_(std::move(vcpus)) {}
  /// vm_gone if QEMU has ended.
  Result<CpuTimes> read() const;
  bool knows_vcpus() const { return !vcpus_.empty(); }

 private:
  pid_t qemu_;
  std::vector<pid_t> vcpus_;
};

/// A field of /proc/PID/status in KiB ("RssAnon", "VmRSS"); nullopt if it has none.
std::optional<std::uint64_t> parse_status_kib(std::string_view status, std::string_view field);
/// CPU time in nanoseconds: the first field of /proc/PID/task/TID/schedstat.
std::optional<std::uint64_t> parse_schedstat(std::string_view text);

/// Watches, from a thread of its own, how much memory we and QEMU take.
class MemoryMeter {
 public:
  explicit MemoryMeter(pid_t qemu);
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;
  ~MemoryMeter();

  std::uint64_t own_anonymous_peak_kib() const { return own_peak_; }
  /// How far QEMU's resident memory rose above what it was at the start.
  std::uint64_t qemu_growth_kib() const;

 private:
  void sample();

  pid_t qemu_;
  std::uint64_t qemu_start_ = 0;
  std::atomic<std::uint64_t> own_peak_ = 0, qemu_peak_ = 0;
  std::jthread thread_;
};

}  // namespace vmsight
