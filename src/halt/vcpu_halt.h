// Halting the vCPU threads of a QEMU process, in the process that calls. Only a guard does
// (undo/guard.h): everybody else asks one, by the halters of halt.h.
//
// What stands still: all guest instructions. What does not: QEMU's other threads and the host's
// kernel, which may still finish transfers of emulated devices into guest RAM (data buffers and
// the rings of virtio devices). The guest kernel's structures are written by its own instructions
// only.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "halt/cgroup.h"
#include "halt/vcpu_threads.h"
#include "host/process.h"
#include "vmsight/result.h"

namespace vmsight {

class VcpuHalt {
 public:
  virtual ~VcpuHalt() = default;
  /// Either all vCPUs are halted or, with an error, all run. timeout if one does not stop; vm_gone.
  virtual Result<void> halt() = 0;
  virtual Result<void> resume() = 0;
  /// Something could not be let go of: only the end of the process does it.
  virtual bool is_stuck() const = 0;
};

/// By ptrace. The kernel resumes the threads when the process ends.
std::unique_ptr<VcpuHalt> make_ptrace_halt(const ProcessId& vm, VcpuRoster vcpus);
/// By the freezer of control groups: the threads are in a group of ours from the first halt until
/// this is destroyed. The change is recorded in the journal, as one of `author`'s.
std::unique_ptr<VcpuHalt> make_freezer_halt(const ProcessId& vm, VcpuRoster vcpus,
                                            std::span<const Freezing> ways,
                                            const ProcessId& author);

// For the setup of a guard.
nlohmann::json to_json(const VcpuThreads& threads);
/// bad_data if it is none.
Result<VcpuRoster> parse_roster(pid_t pid, const nlohmann::json& config);

}  // namespace vmsight
