#include "view/uffd_snapshot.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/clock.h"
#include "view/lent_memory.h"

namespace vmsight {
namespace {

enum Request : std::uint32_t { open_request, protect_request, allow_request };

std::vector<WriteProtect::Run> runs_of(const Vm& vm) {
  std::vector<WriteProtect::Run> runs;
  for (const RamRange& range : vm.ram().ranges()) runs.push_back({range.host, range.size});
  return runs;
}

/// What the attendant does: holds the userfaultfd, and copies pages before they are written.
class CopyService final : public Service {
 public:
  CopyService(const Vm& vm, CopyStore& store, WriteProtectSupport support)
      : vm_(vm), store_(store), support_(support) {}

  Result<std::uint64_t> serve(std::uint32_t request) override {
    switch (request) {
      case open_request:
        return open();
      case protect_request:
        return protect();
      case allow_request:
        return allow();
    }
    return Error{.code = ErrorCode::usage, .message = "unknown request"};
  }
  int watched() const override { return protect_ ? protect_->fd() : -1; }
  Result<void> on_event() override;
  void end() override { protect_.reset(); }  // closing it is all that it takes

 private:
  Result<std::uint64_t> open();
  Result<std::uint64_t> protect();
  Result<std::uint64_t> allow();
  void copy(HostVirt page);
  std::optional<std::uint32_t> number_of(HostVirt page) const;

  const Vm& vm_;
  CopyStore& store_;
  WriteProtectSupport support_;
  Tracing tracing_;
  std::optional<WriteProtect> protect_;
  bool copying_ = false;
};

Result<std::uint64_t> CopyService::open() {
  VMSIGHT_TRY(protect_,
              WriteProtect::open(vm_.info().pid, runs_of(vm_), support_.unpopulated, tracing_));
  return std::uint64_t{0};
}

Result<std::uint64_t> CopyService::protect() {
  store_.clear();
  copying_ = true;
  VMSIGHT_TRY_VOID(protect_->protect());
  return std::uint64_t{0};
}

Result<std::uint64_t> CopyService::allow() {
  copying_ = false;
  VMSIGHT_TRY_VOID(protect_->allow_all());
  return std::uint64_t{store_.count()};
}

/// QEMU's threads stand until their pages are copied: nothing here may wait for QEMU.
Result<void> CopyService::on_event() {
  std::array<HostVirt, 32> pages;
  VMSIGHT_TRY(const std::size_t count, protect_->waiting(pages));
  for (const HostVirt page : std::span(pages).first(count)) {
    if (copying_) copy(page);
    // One that fails was unmapped: its writer gets the fault that it would have had anyway.
    static_cast<void>(protect_->allow(page));
  }
  return {};
}

void CopyService::copy(HostVirt page) {
  const std::optional<std::uint32_t> number = number_of(page);
  if (!number || store_.find(*number) != nullptr) return;
  const iovec local{store_.room(), page_size};
  const iovec remote{reinterpret_cast<void*>(page.raw()), page_size};
  const ssize_t got = ::process_vm_readv(vm_.info().pid, &local, 1, &remote, 1, 0);
  if (got == static_cast<ssize_t>(page_size)) {
    store_.publish(*number);
  } else {
    store_.set_lost();
  }
}

/// As PageIndex numbers them: densely, range by range.
std::optional<std::uint32_t> CopyService::number_of(HostVirt page) const {
  std::uint64_t first = 0;
  for (const RamRange& range : vm_.ram().ranges()) {
    if (page >= range.host && page - range.host < range.size) {
      return static_cast<std::uint32_t>(first + ((page - range.host) >> page_shift));
    }
    first += range.size >> page_shift;
  }
  return std::nullopt;
}

}  // namespace

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
  if (owner_.attendant_ && owner_.attendant_->alive()) return {};
  VMSIGHT_TRY_VOID(owner_.vm_.check_alive());
  return Error{.code = ErrorCode::os,
               .message = "read the snapshot: the process that keeps it has ended",
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
                                                               std::unique_ptr<Halter> halter,
                                                               WriteProtectSupport support) {
  std::unique_ptr<UffdSnapshotter> snapshotter(new UffdSnapshotter(vm, std::move(halter), support));
  VMSIGHT_TRY(std::unique_ptr<ProcessReads> live, ProcessReads::open(vm));
  VMSIGHT_TRY(PageIndex index, PageIndex::from(vm.ram()));
  VMSIGHT_TRY(CopyStore store, CopyStore::make(index.size()));
  snapshotter->store_ = std::make_unique<CopyStore>(std::move(store));
  auto reads = std::make_unique<Reads>(std::move(live), std::move(index), *snapshotter);
  snapshotter->reads_ = reads.get();
  VMSIGHT_TRY(snapshotter->memory_, CachedMemory::make(std::move(reads)));
  return snapshotter;
}

Result<void> UffdSnapshotter::start() {
  if (attendant_ && attendant_->alive()) return {};
  attendant_.reset();
  VMSIGHT_TRY(attendant_, Attendant::start(vm_.info().pid, [this] {
                return std::make_unique<CopyService>(vm_, *store_, support_);
              }));
  if (auto opened = attendant_->ask(open_request); !opened) {
    attendant_.reset();
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

/// While the vCPUs stand.
Result<void> UffdSnapshotter::protect() {
  if (must_record_holes()) VMSIGHT_TRY_VOID(reads_->record_holes());
  auto done = attendant_->ask(protect_request);
  if (!done) return std::move(done).error();
  return {};
}

Result<Snapshot> UffdSnapshotter::take() {
  VMSIGHT_TRY_VOID(vm_.check_alive());
  VMSIGHT_TRY_VOID(start());
  const Stopwatch pause;
  VMSIGHT_TRY(Paused paused, halter_->halt());
  auto protected_now = protect();
  auto resumed = paused.resume();
  const std::uint64_t pause_ns = pause.elapsed_ns();
  if (!protected_now || !resumed) {
    end();
    return !protected_now ? std::move(protected_now).error() : std::move(resumed).error();
  }
  Snapshot snapshot{.memory = std::make_unique<LentMemory>(*memory_, [this] { end(); }),
                    .pause_ns = pause_ns};
  VMSIGHT_TRY_VOID(memory_->refresh());
  return snapshot;
}

void UffdSnapshotter::end() {
  if (!attendant_ || attendant_->ask(allow_request)) return;
  attendant_.reset();  // its end takes back what it could not
}

}  // namespace vmsight
