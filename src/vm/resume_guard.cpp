#include "vm/resume_guard.h"

#include "vm/monitor.h"
#include "vm/recovery.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;

class Undo final : public Service {
 public:
  Undo(VmInfo info, Change change, JournalEntry entry)
      : info_(std::move(info)), change_(std::move(change)), entry_(std::move(entry)) {}

  Result<std::uint64_t> serve(std::uint32_t request) override {
    armed_ = request != 0;
    return std::uint64_t{0};
  }

  void end() override {
    constexpr int attempts = 10;  // QEMU may not have noticed yet that we let go of its monitor
    for (int i = 0; armed_ && i < attempts; ++i) {
      armed_ = !undo_change(info_, change_) && !has_ended({info_.pid, info_.start_time});
    }
    if (!armed_) static_cast<void>(entry_.remove());
  }

 private:
  VmInfo info_;
  Change change_;
  JournalEntry entry_;
  bool armed_ = false;
};

}  // namespace

Result<ResumeGuard> ResumeGuard::start(const VmInfo& info, Change change) {
  ResumeGuard guard;
  VMSIGHT_TRY(guard.entry_, JournalEntry::prepare({info.pid, info.start_time}, change));
  VMSIGHT_TRY(guard.attendant_, Attendant::start(info.pid, [&] {
                return std::make_unique<Undo>(info, change, guard.entry_);
              }));
  VMSIGHT_TRY(guard.process_, identify(guard.attendant_->pid()));
  return guard;
}

Result<void> ResumeGuard::arm() {
  VMSIGHT_TRY_VOID(entry_.write(process_));
  return tell(1);
}

Result<void> ResumeGuard::disarm() {
  VMSIGHT_TRY_VOID(tell(0));
  return entry_.remove();
}

Result<void> ResumeGuard::tell(std::uint32_t armed) {
  VMSIGHT_TRY(const std::uint64_t done, attendant_->ask(armed));
  static_cast<void>(done);
  return {};
}

Result<void> make_it_run(QmpClient& monitor) {
  constexpr int patience = 1000;
  for (int i = 0; i < patience; ++i) {
    VMSIGHT_TRY(const std::string status, ask_run_state(monitor));
    if (status == "running") return {};
    if (status != "finish-migrate" && status != "save-vm") break;
    static_cast<void>(monitor.wait_event("STOP", 2ms));  // an event says nothing of that
  }
  VMSIGHT_TRY(const nlohmann::json done, monitor.execute({"cont"}));
  static_cast<void>(done);
  return {};
}

}  // namespace vmsight
