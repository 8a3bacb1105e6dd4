// Holds what measures to a part of a core, as a host does that has no more to give to it: by a control group with a quota of
// CPU time (v1's cpu.cfs_quota_us, v2's cpu.max; Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
// Whoever used up his share of 100 ms stands still until they are over, also while he halts a guest.
#pragma once

#include <string>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

class CpuAllotment {
 public:
  /// A group of ours at the top of the hierarchy, which takes root; those that killed studies left go. unsupported, with
  /// the reason, where there can be none.
  static Result<CpuAllotment> make(double percent);
  CpuAllotment(CpuAllotment&&) noexcept = default;
  CpuAllotment& operator=(CpuAllotment&&) noexcept = default;
  /// Takes what is left of the group back to the one it came from, and removes it.
  ~CpuAllotment() { end(); }

  /// From now on it holds for this process, and for all that it starts.
  Result<void> enter() const;

 private:
  CpuAllotment(std::string own, std::string path) : own_(std::move(own)), path_(std::move(path)) {}
  void end();

  std::string own_;   // the group that this process was in
  std::string path_;  // "" after it was moved from
};

}  // namespace vmsight
