// Stopping the vCPUs of a VM for a moment, from outside. Knows nothing of kernels or views.
//
//   ptrace    seizes the vCPU threads (needs no monitor; the guest's clock runs on)
//   stop      QMP stop and cont (needs the monitor; the guest's clock stands still)
//   freezer   freezes the vCPU threads in a cgroup of ours, v2 or v1 (needs no monitor and no
//             ptrace; the guest's clock runs on)
//
// A halt is a lease. A small process, the guard, halts the guest, and resumes it after a bound
// whatever became of us: killed, stopped, blocked, debugged. What was read during a halt that was
// cut short is not of one moment: Paused::resume() says so.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace VMSIGHT_PUBLIC vmsight {

class Halter;

/// How long a guest is halted at most, unless more is asked for.
inline constexpr std::chrono::milliseconds default_max_halt{1000};

/// Proof that the guest is halted. Its destructor resumes; resume() says whether that worked.
class [[nodiscard]] Paused {
 public:
  Paused() = default;
  explicit Paused(Halter& halter) : halter_(&halter) {}
  Paused(Paused&& other) noexcept : halter_(std::exchange(other.halter_, nullptr)) {}
  Paused& operator=(Paused&& other) noexcept;
  ~Paused();
  explicit operator bool() const { return halter_ != nullptr; }
  /// The guest runs on, as it did before: one that somebody else had stopped stays stopped. timeout
  /// if it ran before that, because the lease ran out: nothing that was read may be shown then.
  /// Value: for how long the guest was halted, in ns, as the guard measured it; 0 if somebody else had
  /// halted it already (stop and the gdbstub know).
  Result<std::uint64_t> resume();

 private:
  Halter* halter_ = nullptr;
};

/// One way to halt one VM. Kept for many halts, which is what makes them cheap: the guard is
/// started by the first. Not thread safe. Must outlive its Paused.
class Halter {
 public:
  virtual ~Halter() = default;
  /// No instruction of the guest is executed between this returning and resume(), or the end of the
  /// lease. Either all vCPUs are halted or, with an error, all run. timeout if one does not stop.
  virtual Result<Paused> halt() = 0;
  /// Starts the guard now. Value: whether that is all that halting needs from here on, and no connection to QEMU is held
  /// by which more could be done; false: nothing has changed.
  virtual Result<bool> start_guard() = 0;
  virtual std::string_view name() const = 0;  // "ptrace", "stop", "freezer"

 private:
  friend class Paused;
  virtual Result<std::uint64_t> resume() = 0;
};

/// `vm` must outlive the halter. unsupported or permission, with the reason and a hint, if it
/// cannot work here; nothing was changed then.
Result<std::unique_ptr<Halter>> open_ptrace_halter(
    const Vm& vm, std::chrono::milliseconds max_halt = default_max_halt);
Result<std::unique_ptr<Halter>> open_stop_halter(
    const Vm& vm, std::chrono::milliseconds max_halt = default_max_halt);
/// The vCPU threads are in its cgroup from the first halt until it is destroyed.
Result<std::unique_ptr<Halter>> open_freezer_halter(
    const Vm& vm, std::chrono::milliseconds max_halt = default_max_halt);

}  // namespace vmsight
