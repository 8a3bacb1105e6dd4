// Stopping the vCPUs of a VM for a moment, from outside. Knows nothing of kernels or views.
//
//   ptrace    seizes the vCPU threads (needs no monitor; the guest's clock runs on)
//   stop      QMP stop and cont (needs the monitor; the guest's clock stands still)
//   freezer   freezes the vCPU threads in a cgroup of ours, v2 or v1 (needs no monitor and no
//             ptrace; the guest's clock runs on)
//
// A guest never stays halted because we died: the kernel ends a ptrace halt itself, the others are
// watched by a small guard process (vm/resume_guard.h) that resumes the guest within a second.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace vmsight {

class Halter;

/// Proof that the guest stands still. Its destructor resumes; resume() says whether that worked.
class [[nodiscard]] Paused {
 public:
  Paused() = default;
  explicit Paused(Halter& halter) : halter_(&halter) {}
  Paused(Paused&& other) noexcept : halter_(std::exchange(other.halter_, nullptr)) {}
  Paused& operator=(Paused&& other) noexcept;
  ~Paused();
  explicit operator bool() const { return halter_ != nullptr; }
  /// The guest runs on, as it did before: one that somebody else had stopped stays stopped.
  Result<void> resume();

 private:
  Halter* halter_ = nullptr;
};

/// One way to halt one VM. Kept for many halts, which is what makes them cheap. Not thread safe;
/// halt() and resume() must be called by the thread that opened it. Must outlive its Paused.
class Halter {
 public:
  virtual ~Halter() = default;
  /// No instruction of the guest is executed between this returning and resume(). Either all
  /// vCPUs stand or, with an error, all run. timeout if a vCPU does not stop.
  virtual Result<Paused> halt() = 0;
  virtual std::string_view name() const = 0;  // "ptrace", "stop", "freezer"

 private:
  friend class Paused;
  virtual Result<void> resume() = 0;
};

/// `vm` must outlive the halter. unsupported or permission, with the reason and a hint, if it
/// cannot work here; nothing was changed then.
Result<std::unique_ptr<Halter>> open_ptrace_halter(const Vm& vm);
Result<std::unique_ptr<Halter>> open_stop_halter(const Vm& vm);
/// The vCPU threads are in its cgroup from the first halt until it is destroyed.
Result<std::unique_ptr<Halter>> open_freezer_halter(const Vm& vm);

}  // namespace vmsight
