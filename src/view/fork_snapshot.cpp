#include "view/fork_snapshot.h"

#include "base/clock.h"
#include "view/lent_memory.h"
#include "vm/process_copy.h"
#include "vm/remote_syscall.h"
#include "vm/undo_copy.h"

namespace vmsight {
namespace {

enum Request : std::uint32_t { copy_request, remove_request };

/// What the attendant does: makes copies of the VM's process, is their tracer, and removes them.
class ForkService final : public Service {
 public:
  ForkService(const Vm& vm, JournalEntry entry) : vm_(vm), entry_(std::move(entry)) {}

  /// The record stays if QEMU may not be as before.
  Result<std::uint64_t> serve(std::uint32_t request) override {
    VMSIGHT_TRY_VOID(remove());
    if (request == remove_request) return std::uint64_t{0};
    VMSIGHT_TRY(const ProcessId us, identify(::getpid()));
    VMSIGHT_TRY_VOID(entry_.write(us));
    auto copy = ProcessCopy::make(vm_.info().pid, vm_.blocks(), tracing_);
    if (!copy) {
      if (copy.error().code != ErrorCode::timeout) static_cast<void>(entry_.remove());
      return std::move(copy).error();
    }
    copy_ = *std::move(copy);
    return static_cast<std::uint64_t>(copy_->pid());
  }
  void end() override { static_cast<void>(remove()); }

 private:
  Result<void> remove() {
    if (!copy_) return {};
    auto removed = copy_->remove();
    copy_.reset();
    VMSIGHT_TRY_VOID(removed);
    return entry_.remove();
  }

  const Vm& vm_;
  JournalEntry entry_;
  Tracing tracing_;
  std::optional<ProcessCopy> copy_;
};

Result<JournalEntry> prepare_record(const Vm& vm) {
  return JournalEntry::prepare({vm.info().pid, vm.info().start_time},
                               {"fork", describe_copy(vm.blocks())});
}

}  // namespace

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
                                                               std::unique_ptr<Halter> halter) {
  VMSIGHT_TRY_VOID(check_fork(vm));
  std::unique_ptr<ForkSnapshotter> snapshotter(new ForkSnapshotter(vm, std::move(halter)));
  VMSIGHT_TRY(snapshotter->entry_, prepare_record(vm));
  VMSIGHT_TRY(std::unique_ptr<ProcessReads> reads, ProcessReads::open(vm));
  snapshotter->reads_ = reads.get();
  VMSIGHT_TRY(snapshotter->memory_, CachedMemory::make(std::move(reads)));
  return snapshotter;
}

Result<void> ForkSnapshotter::start() {
  if (attendant_ && attendant_->alive()) return {};
  attendant_.reset();
  VMSIGHT_TRY(entry_, prepare_record(vm_));  // an earlier attendant's record may still be needed
  VMSIGHT_TRY(attendant_, Attendant::start(vm_.info().pid, [this] {
                return std::make_unique<ForkService>(vm_, entry_);
              }));
  return {};
}

Result<Snapshot> ForkSnapshotter::take() {
  VMSIGHT_TRY_VOID(vm_.check_alive());
  VMSIGHT_TRY_VOID(start());
  const Stopwatch pause;
  VMSIGHT_TRY(Paused paused, halter_->halt());
  auto copy = attendant_->ask(copy_request);
  auto resumed = paused.resume();
  const std::uint64_t pause_ns = pause.elapsed_ns();
  if (!copy) {
    attendant_.reset();  // whatever it still does, it undoes
    return std::move(copy).error();
  }
  Snapshot snapshot{.memory = std::make_unique<LentMemory>(*memory_, [this] { end(); }),
                    .pause_ns = pause_ns};
  VMSIGHT_TRY_VOID(resumed);
  VMSIGHT_TRY_VOID(reads_->read_from(static_cast<pid_t>(*copy)));
  VMSIGHT_TRY_VOID(memory_->refresh());
  return snapshot;
}

void ForkSnapshotter::end() {
  static_cast<void>(reads_->read_from(vm_.info().pid));
  if (!attendant_ || attendant_->ask(remove_request)) return;
  attendant_.reset();
}

}  // namespace vmsight
