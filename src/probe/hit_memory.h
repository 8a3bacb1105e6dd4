// Guest memory as a standing vCPU sees it: kernel addresses through the kernel's page table, user
// addresses through the one that is loaded.
#pragma once

#include <span>
#include <string>

#include "probe/engine.h"
#include "vmsight/reader.h"

namespace vmsight {

class HitMemory {
 public:
  /// `kernel` reads with the kernel's address space, from the same memory.
  HitMemory(Reader& kernel, std::uint64_t cr3);

  /// False if any byte is not present.
  bool read(std::uint64_t va, std::span<std::byte> into);
  /// How many bytes are present, from the first on.
  std::size_t copy(std::uint64_t va, std::span<std::byte> into);
  std::optional<std::uint64_t> u64(std::uint64_t va);
  Fetched fetch(const ProbeFetch& wanted, const ProbeRegisters& registers,
                const ProbeRegisters& at_entry, GuestVirt task);

 private:
  void read_string(Fetched& fetched, std::size_t size);

  Reader& kernel_;
  AddressSpace user_;
};

}  // namespace vmsight
