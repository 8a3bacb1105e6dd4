#include "view/fork_snapshot.h"

#include "halt/traced_threads.h"
#include "halt/vcpu_halt.h"
#include "halt/vcpu_threads.h"
#include "inject/undo_copy.h"
#include "inject/x86_64/remote_syscall.h"
#include "view/lent_memory.h"

namespace vmsight {
Result<void> check_fork(const Vm& vm) {
  for (const RamBlock& block : vm.blocks()) {
    if (block.backing != Backing::shared_file) continue;
    return Error{
        .code = ErrorCode::unsupported,
        .message = fmt::format("copy the VM's process: RAM block {} is shared memory, and a "
                               "copy would see what the guest writes",
                               block.name),
        .hint = "live-snap:uffd works for shared memory"};
  }
  return BorrowedThread::check(vm.info().pid);
}

Result<std::unique_ptr<ForkSnapshotter>> ForkSnapshotter::open(const Vm& vm,
                                                               std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY_VOID(check_fork(vm));
  VMSIGHT_TRY_VOID(check_may_trace(vm.info().pid));
  std::unique_ptr<ForkSnapshotter> snapshotter(new ForkSnapshotter(vm, max_halt));
  VMSIGHT_TRY(std::unique_ptr<ProcessReads> reads, ProcessReads::open(vm));
  snapshotter->reads_ = reads.get();
  VMSIGHT_TRY(snapshotter->memory_, CachedMemory::make(std::move(reads)));
  return snapshotter;
}

Result<void> ForkSnapshotter::start() {
  if (guard_ && guard_->alive()) return {};
  guard_.reset();
  VMSIGHT_TRY(const VcpuThreads threads, find_vcpu_threads(vm_.info()));
  nlohmann::json config = to_json(threads);
  config.update(describe_copy(vm_.blocks()));
  VMSIGHT_TRY(guard_, Guard::start({vm_.info().pid, vm_.info().start_time},
                                   {.service = "fork", .config = config, .descriptors = {}}));
  return {};
}

Result<Snapshot> ForkSnapshotter::take() {
  VMSIGHT_TRY_VOID(vm_.check_alive());
  VMSIGHT_TRY_VOID(start());
  auto halted = guard_->ask(GuardRequest::halt, static_cast<std::uint64_t>(max_halt_.count()));
  if (!halted) {
    VMSIGHT_TRY_VOID(vm_.check_alive());
    return std::move(halted).error();
  }
  auto copy = guard_->ask(GuardRequest::copy);
  auto resumed = guard_->ask(GuardRequest::resume);
  if (!copy) {
    guard_.reset();  // whatever it still does, it undoes
    return std::move(copy).error();
  }
  Snapshot snapshot{.memory = std::make_unique<LentMemory>(*memory_, [this] { end(); }),
                    .pause_ns = resumed ? *resumed : 0};
  if (!resumed) return std::move(resumed).error();
  VMSIGHT_TRY_VOID(reads_->read_from(static_cast<pid_t>(*copy)));
  VMSIGHT_TRY_VOID(memory_->refresh());
  return snapshot;
}

void ForkSnapshotter::end() {
  static_cast<void>(reads_->read_from(vm_.info().pid));
  if (!guard_ || guard_->ask(GuardRequest::remove_copy)) return;
  guard_.reset();
}

}  // namespace vmsight
