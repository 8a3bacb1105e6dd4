// A "VM" without RAM that is a child process of the test: each of its vCPU threads counts as fast
// as it can. For testing what stops and resumes a guest, without QEMU.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <csignal>

#include "base/os.h"
#include "support/stub_vm.h"

namespace vmsight::test {

enum class ThreadNames { as_qemu, none };

class CountingVm final : public StubVm {
 public:
  static constexpr unsigned max_vcpus = 4;

  explicit CountingVm(unsigned vcpus, ThreadNames names = ThreadNames::as_qemu);
  ~CountingVm() override { end(); }

  std::uint64_t count(unsigned vcpu) const { return shared_->vcpus[vcpu].count.load(); }
  /// False if the vCPU does not count within a second.
  bool counts(unsigned vcpu) const;
  /// True if none of them counts for some milliseconds.
  bool stands() const;
  pid_t thread(unsigned vcpu) const { return shared_->vcpus[vcpu].tid.load(); }
  unsigned vcpus() const { return shared_->started.load(); }

  /// Starts one more counting thread, as hot-plugging does.
  void plug();

  /// Sends a real-time signal to the thread: each is queued, so that none may be lost.
  void signal(unsigned vcpu) const { ::tgkill(info_.pid, thread(vcpu), SIGRTMIN); }
  std::uint64_t signals_seen() const { return shared_->signals.load(); }

  /// Kills the child and waits until it has ended.
  void end();

  Result<void> check_alive() const override;

  /// What the child and the test share.
  struct Vcpu {
    std::atomic<std::uint64_t> count{0};
    std::atomic<pid_t> tid{0};
  };
  struct Shared {
    Vcpu vcpus[max_vcpus];
    std::atomic<unsigned> wanted{0}, started{0};
    std::atomic<std::uint64_t> signals{0};
  };

 private:
  Mapping mapping_;
  Shared* shared_ = nullptr;
  bool ended_ = false;
};

/// Whether `condition` comes true before some seconds are over.
template <typename Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    ::usleep(1000);
  }
  return false;
}

}  // namespace vmsight::test
