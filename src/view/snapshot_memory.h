// Snapshots: each view is a copy of guest memory, taken by refresh() and let go of by end_view().
#pragma once

#include <memory>
#include <string_view>

#include "base/memory_decorator.h"

namespace vmsight {

/// A snapshot that was taken, and what it cost the guest.
struct Snapshot {
  std::unique_ptr<GuestMemory> memory;  // gives back all that the snapshot holds when destroyed
  std::uint64_t pause_ns = 0;           // how long the guest stood for it
  std::uint64_t bytes = 0;              // copied by taking it, before anything is read
};

/// One way to take snapshots of one VM, kept for many of them.
class Snapshotter {
 public:
  virtual ~Snapshotter() = default;
  /// The guest runs on when this returns, also with an error.
  virtual Result<Snapshot> take() = 0;
  /// As GuestMemory::prepare().
  virtual Result<ReadRights> prepare() { return ReadRights{}; }
};

/// What the guest does while the copy is made.
enum class Taken { while_halted, while_running };

class SnapshotMemory final : public MemoryDecorator {
 public:
  /// `live` is read before the first view and between views, and gives the RAM map. `technique`
  /// must be of static storage.
  SnapshotMemory(std::string_view technique, Taken taken, std::unique_ptr<GuestMemory> live,
                 std::unique_ptr<Snapshotter> snapshotter)
      : MemoryDecorator(*live),
        technique_(technique),
        while_(taken),
        live_(std::move(live)),
        snapshotter_(std::move(snapshotter)) {}

  /// Of the live memory: it does not change.
  const RamMap& ram() const override { return live_->ram(); }
  MemoryCounters counters() const override;
  bool is_live() const override { return snapshot_.memory == nullptr; }
  ViewNature nature() const override {
    return {.one_moment = true, .halts = while_ == Taken::while_halted, .copies = true};
  }
  Result<ReadRights> prepare() override { return snapshotter_->prepare(); }
  std::string_view technique() const override { return technique_; }

 private:
  Result<void> do_refresh() override;
  Result<void> do_end_view() override;

  std::string_view technique_;  // "live-snap:fork"
  Taken while_;
  std::unique_ptr<GuestMemory> live_;
  std::unique_ptr<Snapshotter> snapshotter_;
  Snapshot snapshot_;
  MemoryCounters last_;  // of the view that end_view() ended
};

}  // namespace vmsight
