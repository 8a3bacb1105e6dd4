#include "view/uffd_snapshot.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "halt/traced_threads.h"
#include "halt/vcpu_halt.h"
#include "view/lent_memory.h"

namespace vmsight {
/// The pages of the snapshot: copies over live pages over holes.
class UffdSnapshotter::Reads final : public PageSource {
 public:
  Reads(std::unique_ptr<ProcessReads> live, PageIndex index, const UffdSnapshotter& owner)
      : live_(std::move(live)), index_(std::move(index)), owner_(owner) {}

  const RamMap& ram() const override { return live_->ram(); }
  Result<void> read(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override;
  std::uint64_t calls() const override { return live_->calls(); }
  bool is_live() const override { return false; }
  bool is_passive() const override { return false; }  // the guest's writes wait for our copies
  std::string_view technique() const override { return "live-snap:uffd"; }

  /// Remembers which pages are there now. Where the host cannot protect others, they are zeros in
  /// the snapshot, whatever is written to them later.
  Result<void> record_holes();

 private:
  Result<void> check() const;
  bool from_snapshot(const FreshRead& read);

  std::unique_ptr<ProcessReads> live_;
  PageIndex index_;
  const UffdSnapshotter& owner_;
  std::vector<PhysRange> present_;  // if holes are not protected
  std::vector<bool> is_present_;    // the same, by page number
  std::vector<FreshRead> batch_;    // reused by read()
  std::vector<std::size_t> origin_;
};

Result<void> UffdSnapshotter::Reads::record_holes() {
  VMSIGHT_TRY(present_, live_->populated());
  is_present_.assign(index_.size(), false);
  for (const PhysRange& run : present_) {
    for (std::uint64_t at = 0; at < run.size; at += page_size) {
      if (const auto number = index_.find(run.start + at)) is_present_[*number] = true;
    }
  }
  return {};
}

Result<void> UffdSnapshotter::Reads::check() const {
  if (owner_.store_->lost()) {
    return Error{
        .code = ErrorCode::os,
        .message = "read the snapshot: a page could not be copied before the guest wrote it"};
  }
  if (owner_.guard_ && owner_.guard_->alive()) return {};
  VMSIGHT_TRY_VOID(owner_.vm_.check_alive());
  return Error{.code = ErrorCode::os,
               .message = "read the snapshot: the guard that keeps it has ended",
               .hint = "the VM runs on as before; try again"};
}

/// Answers a read without looking at live memory, if it can.
bool UffdSnapshotter::Reads::from_snapshot(const FreshRead& read) {
  const std::uint32_t number = *index_.find(read.from);
  if (const std::byte* copy = owner_.store_->find(number)) {
    std::memcpy(read.into.data(), copy + read.from.page_offset(), read.into.size());
    return true;
  }
  if (is_present_.empty() || is_present_[number]) return false;
  std::fill(read.into.begin(), read.into.end(), std::byte{0});
  return true;
}

Result<void> UffdSnapshotter::Reads::read(std::span<FreshRead> reads) {
  batch_.clear();
  origin_.clear();
  for (std::size_t i = 0; i < reads.size(); ++i) {
    reads[i].ok = from_snapshot(reads[i]);
    if (reads[i].ok) continue;
    batch_.push_back(reads[i]);
    origin_.push_back(i);
  }
  if (!batch_.empty()) VMSIGHT_TRY_VOID(live_->read(batch_));
  for (std::size_t i = 0; i < batch_.size(); ++i) {
    // Copied meanwhile: what was read may be new.
    reads[origin_[i]].ok = from_snapshot(batch_[i]) || batch_[i].ok;
  }
  return check();
}

Result<std::vector<PhysRange>> UffdSnapshotter::Reads::populated() {
  if (!is_present_.empty()) return present_;
  return live_->populated();
}

Result<void> UffdSnapshotter::Reads::scan(GuestPhys from, std::span<std::byte> into) {
  VMSIGHT_TRY_VOID(live_->scan(from, into));
  while (!into.empty()) {
    const auto piece =
        into.first(std::min<std::uint64_t>(into.size(), page_size - from.page_offset()));
    from_snapshot({.from = from, .into = piece});
    into = into.subspan(piece.size());
    from = from + piece.size();
  }
  return check();
}

Result<void> UffdSnapshotter::Reads::health() {
  VMSIGHT_TRY_VOID(live_->health());
  return check();
}

Result<std::unique_ptr<UffdSnapshotter>> UffdSnapshotter::open(const Vm& vm,
                                                               WriteProtectSupport support,
                                                               std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY_VOID(check_may_trace(vm.info().pid));
  std::unique_ptr<UffdSnapshotter> snapshotter(new UffdSnapshotter(vm, support, max_halt));
  VMSIGHT_TRY(std::unique_ptr<ProcessReads> live, ProcessReads::open(vm));
  VMSIGHT_TRY(PageIndex index, PageIndex::from(vm.ram()));
  VMSIGHT_TRY(CopyStore store, CopyStore::make(index.size()));
  snapshotter->store_ = std::make_unique<CopyStore>(std::move(store));
  auto reads = std::make_unique<Reads>(std::move(live), std::move(index), *snapshotter);
  snapshotter->reads_ = reads.get();
  VMSIGHT_TRY(snapshotter->memory_, CachedMemory::make(std::move(reads)));
  return snapshotter;
}

nlohmann::json UffdSnapshotter::config(const VcpuThreads& threads) const {
  nlohmann::json config = to_json(threads);
  config["unpopulated"] = support_.unpopulated;
  auto& ranges = config["ranges"] = nlohmann::json::array();
  for (const RamRange& range : vm_.ram().ranges()) {
    ranges.push_back({range.host.raw(), range.size});
  }
  return config;
}

Result<void> UffdSnapshotter::start() {
  if (guard_ && guard_->alive()) return {};
  guard_.reset();
  VMSIGHT_TRY(const VcpuThreads threads, find_vcpu_threads(vm_.info()));
  VMSIGHT_TRY(
      guard_,
      Guard::start({vm_.info().pid, vm_.info().start_time},
                   {.service = "uffd", .config = config(threads), .descriptors = {store_->fd()}}));
  if (auto opened = guard_->ask(GuardRequest::open); !opened) {
    guard_.reset();
    return std::move(opened).error();
  }
  return {};
}

/// Shared memory needs no such thing: its holes have been protected since it could be at all.
bool UffdSnapshotter::must_record_holes() const {
  return !support_.unpopulated &&
         std::any_of(vm_.blocks().begin(), vm_.blocks().end(),
                     [](const RamBlock& block) { return block.backing == Backing::anonymous; });
}

/// While the vCPUs are halted.
Result<void> UffdSnapshotter::protect() {
  if (must_record_holes()) VMSIGHT_TRY_VOID(reads_->record_holes());
  auto done = guard_->ask(GuardRequest::protect);
  if (!done) return std::move(done).error();
  return {};
}

Result<Snapshot> UffdSnapshotter::take() {
  VMSIGHT_TRY_VOID(vm_.check_alive());
  VMSIGHT_TRY_VOID(start());
  auto halted = guard_->ask(GuardRequest::halt, static_cast<std::uint64_t>(max_halt_.count()));
  if (!halted) {
    VMSIGHT_TRY_VOID(vm_.check_alive());
    return std::move(halted).error();
  }
  auto protected_now = protect();
  auto resumed = guard_->ask(GuardRequest::resume);
  if (!protected_now || !resumed) {
    end();
    return !protected_now ? std::move(protected_now).error() : std::move(resumed).error();
  }
  Snapshot snapshot{.memory = std::make_unique<LentMemory>(*memory_, [this] { end(); }),
                    .pause_ns = *resumed};
  VMSIGHT_TRY_VOID(memory_->refresh());
  return snapshot;
}

void UffdSnapshotter::end() {
  if (!guard_ || guard_->ask(GuardRequest::unprotect)) return;
  guard_.reset();  // its end takes back what it could not
}

}  // namespace vmsight
