// Liveness: any access, with the guest halted from refresh() to end_view().
#pragma once

#include <memory>
#include <string>

#include "base/memory_decorator.h"
#include "vmsight/halt.h"

namespace vmsight {

/// What reading `access` while `halter` halts the guest needs.
Result<ReadRights> prepare_halted(GuestMemory& access, Halter& halter);

class PausedMemory final : public MemoryDecorator {
 public:
  PausedMemory(std::string technique, std::unique_ptr<GuestMemory> access,
               std::unique_ptr<Halter> halter)
      : MemoryDecorator(*access),
        technique_(std::move(technique)),
        access_(std::move(access)),
        halter_(std::move(halter)) {}

  MemoryCounters counters() const override;
  bool is_live() const override { return !paused_; }
  ViewNature nature() const override { return {.one_moment = true, .halts = true}; }
  Result<ReadRights> prepare() override { return prepare_halted(*access_, *halter_); }
  std::string_view technique() const override { return technique_; }

 private:
  Result<void> do_refresh() override;
  Result<void> do_end_view() override;

  std::string technique_;  // "halt-map:ptrace"
  std::unique_ptr<GuestMemory> access_;
  std::unique_ptr<Halter> halter_;
  Paused paused_;
  std::uint64_t halted_at_ = 0;  // host time; when paused_
  std::uint64_t pause_ns_ = 0;   // of this view, when it is over
};

}  // namespace vmsight
