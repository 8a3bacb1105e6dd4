// Guest memory from an agent in the guest: what it takes is a virtio-serial port, and no right to
// QEMU's memory. The guest itself reads and sends it, live.
//
//   agent:vmsight   our own agent, which sends bytes
//   agent:qga       the stock qemu-guest-agent, which sends base64 in JSON
//
// What the guest's kernel does not show as RAM (firmware, reserved memory) is unreadable.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "agent/agent_memory.h"
#include "view/page_source.h"
#include "view/read_plan.h"
#include "vmsight/vm.h"

namespace vmsight {

class AgentReads final : public PageSource {
 public:
  /// `vm` must outlive the source.
  AgentReads(const Vm& vm, std::unique_ptr<AgentMemory> agent, std::string_view technique)
      : vm_(vm), agent_(std::move(agent)), technique_(technique) {}

  const RamMap& ram() const override { return vm_.ram(); }
  Result<void> read(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override { return vm_.check_alive(); }
  std::uint64_t calls() const override { return agent_->calls(); }
  bool is_live() const override { return true; }
  bool is_passive() const override { return false; }
  Result<ReadRights> prepare() override { return ReadRights{.suffice = agent_->only_reads()}; }
  std::string_view technique() const override { return technique_; }

 private:
  using Runs = std::span<AgentMemory::Run>;
  Result<void> ask(Runs runs);
  Result<void> scan_piece(GuestPhys from, std::span<std::byte> piece);
  std::vector<PhysRange> shown(GuestPhys from, std::uint64_t size) const;
  Result<void> ask_planned(std::span<FreshRead> reads, std::uint64_t max_gap);

  const Vm& vm_;
  std::unique_ptr<AgentMemory> agent_;
  std::string_view technique_;
  std::vector<std::byte> bytes_;  // of a batch
};

}  // namespace vmsight
