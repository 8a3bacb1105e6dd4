// open_vm: an attached VM.
#include "vmsight/vm.h"

#include "host/process.h"
#include "qemu/layout.h"
#include "qemu/monitor_questions.h"
#include "qemu/monitor_session.h"
#include "qemu/run_state.h"

namespace vmsight {
namespace {

class QemuVm final : public Vm {
 public:
  explicit QemuVm(VmInfo info) : info_(std::move(info)) {}

  Result<void> attach() {
    VMSIGHT_TRY(pidfd_, open_pidfd({info_.pid, info_.start_time}));
    VMSIGHT_TRY(const CommandLine line, parse_command_line(info_.arguments));
    auto layout = find_layout(info_, line);
    VMSIGHT_TRY_VOID(check_alive());  // a dying process has neither memory nor monitor
    if (!layout) return std::move(layout).error();
    layout_ = *std::move(layout);
    return {};
  }

  const VmInfo& info() const override { return info_; }
  const std::vector<RamBlock>& blocks() const override { return layout_.blocks; }
  const RamMap& ram() const override { return layout_.ram; }
  std::string_view ram_source() const override { return layout_.source; }
  std::string ram_note() const override { return layout_.ram_note; }
  std::string monitor_note() const override { return layout_.monitor_note; }
  Result<void> check_alive() const override { return check_pidfd(pidfd_.get(), info_.pid); }

  Result<std::vector<VcpuRegisters>> registers() override { return ask(&ask_registers); }
  Result<std::string> run_state() override { return ask(&ask_run_state); }

 private:
  /// Without a session of ours a connection lasts one question, so that the socket stays free for
  /// its other users.
  template <typename Answer>
  Result<Answer> ask(Result<Answer> (*question)(QmpClient&)) {
    VMSIGHT_TRY_VOID(check_alive());
    auto session = MonitorSession::of(info_);
    auto answer =
        session ? (*session)->with_client(question) : Result<Answer>(std::move(session).error());
    if (!answer) VMSIGHT_TRY_VOID(check_alive());
    return answer;
  }

  VmInfo info_;
  UniqueFd pidfd_;
  HostLayout layout_;
};

}  // namespace

std::string_view to_string(Accelerator accelerator) {
  switch (accelerator) {
    case Accelerator::tcg:
      return "tcg";
    case Accelerator::kvm:
      return "kvm";
    case Accelerator::unknown:
      break;
  }
  return "unknown";
}

std::string_view to_string(Backing backing) {
  switch (backing) {
    case Backing::anonymous:
      return "anonymous";
    case Backing::shared_file:
      return "shared file";
    case Backing::private_file:
      return "private file";
  }
  return "unknown";
}

Result<std::unique_ptr<Vm>> open_vm(const VmInfo& info) {
  auto vm = std::make_unique<QemuVm>(info);
  VMSIGHT_TRY_VOID(vm->attach());
  return std::unique_ptr<Vm>(std::move(vm));
}

}  // namespace vmsight
