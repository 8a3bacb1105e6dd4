// Guest memory by QEMU's monitor, without any right to the QEMU process itself.
//
//   xp         words as text, for each run of neighbouring pages one command
//   pmemsave   each run into a file in our memory
//
// Many commands go out in one write. QEMU answers them in its main loop, which holds its big lock
// meanwhile: the vCPUs run on, but their accesses to emulated devices wait.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "qemu/save_file.h"
#include "view/page_source.h"
#include "view/read_plan.h"
#include "vmsight/vm.h"

namespace vmsight {

class MonitorReads final : public PageSource {
 public:
  enum class Way { xp, pmemsave };

  /// `vm` must outlive the source. Holds the VM's monitor session for as long as it lives.
  static Result<std::unique_ptr<MonitorReads>> open(const Vm& vm, Way way);

  const RamMap& ram() const override { return vm_.ram(); }
  Result<void> read(std::span<FreshRead> reads) override;
  /// All RAM: the monitor does not tell which of it is populated.
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  /// vm_gone, once, also for a guest that was reset: until it has written over its old memory, that looks alive.
  Result<void> health() override;
  std::uint64_t calls() const override { return calls_; }
  bool is_live() const override { return true; }
  bool is_passive() const override { return false; }
  std::string_view technique() const override;
  Error explain(Error error) const { return explain_failure(vm_, std::move(error)); }

 private:
  MonitorReads(const Vm& vm, Way way) : vm_(vm), way_(way) {}

  Result<void> read_by_xp(ReadPlan& plan, std::span<const ReadPlan::Run> runs);
  Result<void> read_by_saving(ReadPlan& plan, std::span<const ReadPlan::Run> runs);
  Result<void> copy(GuestPhys from, std::span<std::byte> into);
  Result<std::vector<nlohmann::json>> ask(std::span<const QmpClient::Command> commands,
                                          std::uint64_t bytes);

  const Vm& vm_;
  Way way_;
  std::shared_ptr<MonitorSession> session_;
  std::optional<SaveFiles> files_;  // none if QEMU cannot write to us
  std::vector<SaveFile> saved_;     // one for each command of a batch
  std::vector<std::byte> bytes_;    // of one run
  std::uint64_t calls_ = 0;
  std::uint64_t resets_ = 0;  // of which was told
};

}  // namespace vmsight
