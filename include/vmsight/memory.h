// Guest-physical memory: the narrow door between the guest's RAM and everything that makes
// sense of it. src/view implements it, one file an access; tests fake it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/address.h"
#include "vmsight/result.h"

namespace VMSIGHT_PUBLIC vmsight {

/// One run of guest RAM that is contiguous in guest-physical addresses and in its backing.
///
///   guest-physical   0 ........ 3 GiB          4 GiB .......... 6 GiB
///                    [ range 0 ]  (PCI hole)   [ range 1 ]
///   block "pc.ram"   0 ........ 3 GiB | 3 GiB ......... 5 GiB
struct RamRange {
  GuestPhys start;
  std::uint64_t size = 0;          // bytes, a multiple of 4096
  std::string block;               // QEMU's name of the RAM block, "" if unknown
  std::uint64_t block_offset = 0;  // where the range begins in its block
  HostVirt host{};                 // where it begins in the QEMU process; 0 for images
  GuestPhys end() const { return start + size; }
};

/// Which guest-physical addresses are RAM. Sorted, not overlapping.
class RamMap {
 public:
  RamMap() = default;
  /// Sorts; overlapping, unaligned or empty ranges are an error (bad_data).
  static Result<RamMap> from(std::vector<RamRange> ranges);

  std::span<const RamRange> ranges() const { return ranges_; }
  /// The range that holds this address, or nullptr.
  const RamRange* find(GuestPhys address) const;
  bool contains(GuestPhys address) const { return find(address) != nullptr; }
  std::uint64_t total_bytes() const;
  GuestPhys end() const { return ranges_.empty() ? GuestPhys(0) : ranges_.back().end(); }

 private:
  std::vector<RamRange> ranges_;
};

/// What one view cost. Counted since the last refresh().
struct MemoryCounters {
  std::uint64_t bytes = 0;     // bytes copied from the guest, or pages * 4096 for mappings
  std::uint64_t pages = 0;     // distinct pages touched
  std::uint64_t calls = 0;     // system calls or interface commands
  std::uint64_t pause_ns = 0;  // how long the guest was stopped for this view, so far
};

/// A copy of `into.size()` bytes that must not come from a cache.
struct FreshRead {
  GuestPhys from;  // must not cross a page
  std::span<std::byte> into;
  bool ok = false;  // set by read_fresh
};

/// A populated run of guest RAM; addresses outside all runs read as zeros.
struct PhysRange {
  GuestPhys start;
  std::uint64_t size = 0;
};

/// What a view of some memory does to the guest, and what it shows. It is asked of the memory; the
/// name of a technique tells it to people only.
struct ViewNature {
  bool one_moment = false;  // all that one view shows is of the same moment
  bool halts = false;       // the guest is halted for as long as the view, or its copy, is made
  bool copies = false;      // a view is a copy: the guest runs on while it is read
  bool direct = false;      // page() shows what is there now; nothing is kept between reads
  /// Neither the guest nor QEMU takes part: nothing is asked of them or done to them, and they may be halted
  /// or busy while it is read.
  bool passive = false;
  /// Nothing that can block may be done between refresh() and end_view().
  bool is_read_halted() const { return halts && !copies; }
};

/// What views of a memory ask of the host from now on, for whoever gives up his rights before he looks at it.
struct ReadRights {
  /// These are all. False: files are opened, programs started, or a connection is held by which QEMU or the guest
  /// could be changed.
  bool suffice = false;
  pid_t process = 0;  // whose memory is read by process_vm_readv; 0 = nobody's
};

/// Guest-physical memory, page by page. Not thread safe. Nothing here changes the guest, but a
/// technique that halts it or takes snapshots does so from refresh() to end_view().
class GuestMemory {
 public:
  virtual ~GuestMemory() = default;

  virtual const RamMap& ram() const = 0;

  /// The 4096 bytes of the page that holds `address`, or nullptr if it is not RAM or cannot be
  /// read (then health() tells whether the VM itself is gone). Valid until generation() changes:
  /// until the next refresh(), end_view() or forget(). The bytes may change while you look at them when the guest is running and the
  /// access is a mapping: copy a value once, then use the copy.
  virtual const std::byte* page(GuestPhys address) = 0;

  /// A hint: these pages will be needed. Fetched in one batch where that helps; a memory whose pages cost
  /// nothing to get at does nothing.
  virtual void prefetch(std::span<const GuestPhys> pages) = 0;

  /// Copies straight from the guest, past every cache, in as few calls as possible, and sets `ok` of each. What
  /// cannot be read is not `ok`; an error means that reading itself does not work.
  virtual Result<void> read_fresh(std::span<FreshRead> reads) = 0;

  /// A new view begins: caches are dropped, counters start at 0. Pages that the view before
  /// touched may be fetched at once (contents are new; only the choice of pages is learnt).
  ///
  /// A technique that halts the guest stops it here; one that takes snapshots takes one here. Both
  /// give live memory before their first refresh(): finding a kernel needs no halted guest.
  Result<void> refresh() {
    ++generation_;
    return do_refresh();
  }

  /// The view is over: a guest that was stopped for it runs again, a snapshot is let go of. Pages
  /// handed out are invalid; counters() still tells of the view. Nothing to do without a view.
  /// An error means that what was read must not be shown: timeout if the guest ran during the view,
  /// because its halt took longer than it may; else the guest may still be halted, and the error
  /// says what to do. The destructor does the same, silently.
  Result<void> end_view() {
    ++generation_;
    return do_end_view();
  }

  /// Drops cached copies of these pages, so that the next page() reads them anew.
  void forget(std::span<const GuestPhys> pages) {
    ++generation_;
    do_forget(pages);
  }

  /// Another number once pages handed out before are no longer valid. Whoever keeps what page()
  /// gave keeps the number with it, and looks at it before each use. The reference lives as long
  /// as the memory.
  const std::uint64_t& generation() const { return generation_; }

  /// Runs of RAM that the host has populated, for scanning without allocating holes.
  virtual Result<std::vector<PhysRange>> populated() = 0;

  /// Copies a long run for scanning, without allocating holes of a shared backend and without
  /// filling caches. Bytes of holes are zero. Returns a fault if the run leaves RAM.
  virtual Result<void> scan(GuestPhys from, std::span<std::byte> into) = 0;

  /// An error (vm_gone, os) if reads stopped working for good; otherwise success.
  virtual Result<void> health() = 0;

  virtual MemoryCounters counters() const = 0;

  /// The guest may be running now: what is read must be verified. False from refresh() to
  /// end_view() for techniques that halt the guest or take snapshots.
  virtual bool is_live() const = 0;

  virtual ViewNature nature() const = 0;

  /// Gets hold of what later views need and can be had now: starts the program that halts the guest. Nothing is done
  /// to the guest. A memory that knows of no bound to what it needs says so.
  virtual Result<ReadRights> prepare() { return ReadRights{}; }

  /// "live-map", "live-read", "file" ...; what --technique takes and view.technique says. To be shown; what
  /// the memory does is told by nature().
  virtual std::string_view technique() const = 0;

 private:
  // What refresh(), end_view() and forget() do, as they promise. A memory that holds nothing for a view has
  // nothing to end; one that keeps no copies has none to forget.
  virtual Result<void> do_refresh() = 0;
  virtual Result<void> do_end_view() = 0;
  virtual void do_forget(std::span<const GuestPhys> pages) = 0;

  std::uint64_t generation_ = 0;
};

/// Copies physical memory through page(); crosses pages. How many bytes came before the first page
/// that is not readable, or all.
std::size_t copy_phys(GuestMemory& memory, GuestPhys from, std::span<std::byte> into);
/// The same, for whoever wants all of it. False if any byte is not readable.
bool read_phys(GuestMemory& memory, GuestPhys from, std::span<std::byte> into);

}  // namespace vmsight
