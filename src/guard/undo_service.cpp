// Undoes one change when its owner is gone, or at once. Config: kind, payload.
#include "guard/change_kinds.h"
#include "guard/service.h"
#include "undo/journal.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

class UndoService final : public Service {
 public:
  UndoService(const ServiceSetup& setup, Change change, JournalEntry entry)
      : vm_(setup.vm), change_(std::move(change)), entry_(std::move(entry)) {}

  Result<std::uint64_t> serve(const GuardQuestion& question) override {
    Result<void> done;
    switch (question.request) {
      case GuardRequest::arm:
        done = entry_.write();
        is_armed_ = done.has_value();
        break;
      case GuardRequest::disarm:
        is_armed_ = false;
        done = entry_.remove();
        break;
      case GuardRequest::undo:
        done = undo_change(vm_, change_);
        break;
      default:
        return unknown_request();
    }
    if (!done) return std::move(done).error();
    return std::uint64_t{0};
  }

  void end() override {
    if (!is_armed_) return;
    if (undo_persistently(vm_, change_)) static_cast<void>(entry_.remove());
  }

 private:
  ProcessId vm_;
  Change change_;
  JournalEntry entry_;
  bool is_armed_ = false;
};

}  // namespace

Result<std::unique_ptr<Service>> make_undo_service(ServiceSetup&& setup) {
  const json kind = setup.config.value("kind", json());
  if (!kind.is_string()) return unknown_request();
  VMSIGHT_TRY(Change change, change_of_kind(kind.get_ref<const std::string&>(),
                                            setup.config.value("payload", json::object())));
  VMSIGHT_TRY(auto entry, JournalEntry::prepare(setup.vm, change, setup.owner));
  return std::unique_ptr<Service>(
      std::make_unique<UndoService>(setup, std::move(change), std::move(entry)));
}

}  // namespace vmsight
