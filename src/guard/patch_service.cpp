// Changes bytes of guest code while the vCPUs are halted, and puts back what is left when its owner
// is gone. Config: that of the halt service.
//
//   arm      journals a list of patches that will be written; the value is its number
//   write    the guest is halted: all or none, if what is there is as expected
//   revert   the guest is halted: what is still ours is put back
//   disarm   argument: a number that arm gave. Its patches are gone
#include <map>

#include "guard/change_kinds.h"
#include "guard/halt_service.h"
#include "probe/patch/code_patch.h"
#include "undo/journal.h"

namespace vmsight {
namespace {

class PatchService final : public HaltService {
 public:
  PatchService(ServiceSetup setup, std::unique_ptr<VcpuHalt> how)
      : HaltService(std::move(how)), setup_(std::move(setup)) {}

  Result<std::uint64_t> serve(const GuardQuestion& question) override {
    switch (question.request) {
      case GuardRequest::arm:
        return arm(question.payload);
      case GuardRequest::disarm:
        return disarm(question.argument);
      case GuardRequest::write:
      case GuardRequest::revert:
        VMSIGHT_TRY_VOID(halt().check());
        VMSIGHT_TRY_VOID(change_code(setup_.vm.pid, question.request, question.payload));
        return std::uint64_t{0};
      default:
        return HaltService::serve(question);
    }
  }

  void end() override {
    HaltService::end();
    for (auto& [number, batch] : batches_) {
      if (undo_persistently(setup_.vm, batch.change)) static_cast<void>(batch.entry.remove());
    }
  }

 private:
  struct Batch {
    Change change;
    JournalEntry entry;
  };

  Result<std::uint64_t> arm(const nlohmann::json& payload) {
    Batch batch{.change = make_change(probes_change, payload), .entry = {}};
    VMSIGHT_TRY(batch.entry, JournalEntry::prepare(setup_.vm, batch.change, setup_.owner));
    VMSIGHT_TRY_VOID(batch.entry.write());
    batches_.emplace(++last_, std::move(batch));
    return last_;
  }

  Result<std::uint64_t> disarm(std::uint64_t number) {
    const auto batch = batches_.find(number);
    if (batch == batches_.end()) return unknown_request();
    auto removed = batch->second.entry.remove();
    batches_.erase(batch);
    if (!removed) return std::move(removed).error();
    return std::uint64_t{0};
  }

  ServiceSetup setup_;
  std::map<std::uint64_t, Batch> batches_;
  std::uint64_t last_ = 0;
};

}  // namespace

Result<std::unique_ptr<Service>> make_patch_service(ServiceSetup&& setup) {
  VMSIGHT_TRY(auto how, make_vcpu_halt(setup));
  return std::unique_ptr<Service>(std::make_unique<PatchService>(std::move(setup), std::move(how)));
}

}  // namespace vmsight
