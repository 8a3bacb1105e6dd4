// Where a CachedMemory gets its pages from: the part of a technique that differs between
// process_vm_readv, a gdbstub, a monitor or an agent.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "vmsight/memory.h"

namespace vmsight {

class PageSource {
 public:
  virtual ~PageSource() = default;

  virtual const RamMap& ram() const = 0;

  /// Reads all of these in as few calls as possible and sets `ok` of each; every `from` is RAM
  /// and none crosses a page. A page that cannot be read is data (ok = false), not an error;
  /// an error (vm_gone, permission, os) means that reading itself does not work.
  virtual Result<void> read(std::span<FreshRead> reads) = 0;

  /// As GuestMemory::populated, scan and health.
  virtual Result<std::vector<PhysRange>> populated() = 0;
  virtual Result<void> scan(GuestPhys from, std::span<std::byte> into) = 0;
  virtual Result<void> health() = 0;

  /// System calls or interface commands made so far.
  virtual std::uint64_t calls() const = 0;
  /// The guest may write the pages while they are read.
  virtual bool is_live() const = 0;
  /// As ViewNature::passive.
  virtual bool is_passive() const = 0;
  /// As GuestMemory::prepare().
  virtual Result<ReadRights> prepare() { return ReadRights{}; }
  virtual std::string_view technique() const = 0;
};

}  // namespace vmsight
