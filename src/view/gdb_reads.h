// Guest memory by QEMU's gdbstub while it holds the guest; by the monitor while it does not, and
// for long runs, which the monitor copies faster.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qemu/gdb_stub.h"
#include "view/monitor_reads.h"

namespace vmsight {

class GdbReads final : public PageSource {
 public:
  /// `stub` is used by reads only; it may end before the source does.
  GdbReads(GdbStub& stub, std::unique_ptr<MonitorReads> monitor)
      : stub_(stub), monitor_(std::move(monitor)) {}

  const RamMap& ram() const override { return monitor_->ram(); }
  Result<void> read(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override { return monitor_->populated(); }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    return monitor_->scan(from, into);
  }
  Result<void> health() override { return monitor_->health(); }
  std::uint64_t calls() const override { return calls_ + monitor_->calls(); }
  bool is_live() const override { return true; }
  bool is_passive() const override { return false; }
  std::string_view technique() const override { return "halt-interface:gdbstub"; }

 private:
  Result<void> ask(GdbClient& client, ReadPlan& plan, std::span<const ReadPlan::Run> runs);

  GdbStub& stub_;
  std::unique_ptr<MonitorReads> monitor_;
  std::vector<std::byte> bytes_;  // of one run
  std::uint64_t calls_ = 0;
};

}  // namespace vmsight
