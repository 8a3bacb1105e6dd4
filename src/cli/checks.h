// What `doctor` looks at: each check says whether something works and, if not, what to do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/verb.h"
#include "vmsight/vm.h"

namespace vmsight {

struct Check {
  std::string name;
  std::string what;  // one line: what it is good for
  bool works = false;
  std::string reason;  // why not, or how
  std::string hint;
  /// Of techniques and engines: what they can do and what they do to the guest, "consistent", "stops_guest".
  std::vector<std::string_view> abilities{};
};

/// Rights and features of the host.
std::vector<Check> check_host();
struct VmChecks {
  /// What a user wants to know: can it be read, at one moment, without a pause, and probed.
  std::vector<Check> summary;
  std::vector<Check> table;  // the monitor, each technique and each engine
};
/// The table only if `whole`.
VmChecks check_vm(Vm& vm, bool whole);
/// That a rule of `vmsight watch` has paused the guest, and when; nullopt if none has. A record of a pause
/// that is over is removed.
std::optional<Check> check_paused(Vm& vm);
/// Whether a kernel is found, by the technique and cache the options name.
Check check_kernel(const CommonOptions& options);

}  // namespace vmsight
