// Makes copies of the VM's process, is their tracer, and removes them.
// Config: that of the halt service; blocks: see describe_copy().
#include "guard/halt_service.h"
#include "host/process.h"
#include "inject/process_copy.h"
#include "inject/undo_copy.h"
#include "undo/journal.h"

namespace vmsight {
namespace {

class ForkService final : public HaltService {
 public:
  ForkService(ServiceSetup setup, std::unique_ptr<VcpuHalt> how, std::vector<RamBlock> blocks,
              JournalEntry entry)
      : HaltService(std::move(how)),
        setup_(std::move(setup)),
        blocks_(std::move(blocks)),
        entry_(std::move(entry)) {}

  Result<std::uint64_t> serve(const GuardQuestion& question) override {
    if (question.request == GuardRequest::copy) return copy();
    if (question.request != GuardRequest::remove_copy) return HaltService::serve(question);
    VMSIGHT_TRY_VOID(note(remove()));
    return std::uint64_t{0};
  }
  void end() override {
    HaltService::end();
    static_cast<void>(remove());
  }

 private:
  /// The record stays if QEMU may not be as before.
  Result<std::uint64_t> copy() {
    VMSIGHT_TRY_VOID(halt().check());
    VMSIGHT_TRY_VOID(note(remove()));
    VMSIGHT_TRY_VOID(entry_.write());
    auto made = note(ProcessCopy::make(setup_.vm.pid, blocks_, tracing_));
    if (!made) {
      if (made.error().code != ErrorCode::timeout || vm_has_ended()) {
        static_cast<void>(entry_.remove());
      }
      return std::move(made).error();
    }
    copy_ = *std::move(made);
    return static_cast<std::uint64_t>(copy_->pid());
  }

  Result<void> remove() {
    if (!copy_) return {};
    auto removed = copy_->remove();
    copy_.reset();
    if (removed || vm_has_ended()) VMSIGHT_TRY_VOID(entry_.remove());
    return removed;
  }

  /// Then there is nothing to undo.
  bool vm_has_ended() const { return thread_has_ended(setup_.vm.pid) || has_ended(setup_.vm, 0); }

  ServiceSetup setup_;
  std::vector<RamBlock> blocks_;
  JournalEntry entry_;
  Tracing tracing_;
  std::optional<ProcessCopy> copy_;
};

}  // namespace

Result<std::unique_ptr<Service>> make_fork_service(ServiceSetup&& setup) {
  VMSIGHT_TRY(auto how, make_vcpu_halt(setup));
  VMSIGHT_TRY(auto blocks, parse_copied_blocks(setup.config));
  VMSIGHT_TRY(auto entry,
              JournalEntry::prepare(setup.vm, make_change(copy_change, describe_copy(blocks)),
                                    setup.owner));
  return std::unique_ptr<Service>(std::make_unique<ForkService>(
      std::move(setup), std::move(how), std::move(blocks), std::move(entry)));
}

}  // namespace vmsight
