// The memory of a user process, through its own page table.
#pragma once

#include <cstddef>
#include <span>

#include "vmsight/reader.h"

namespace vmsight {

class UserMemory {
 public:
  /// `pgd` is mm_struct.pgd: the address of the top table in the kernel's direct map.
  UserMemory(Reader& reader, GuestVirt pgd);

  /// How many bytes could be read before the first page that is not present (swapped out, never
  /// touched, no such area). Not a fault of the reader: the kernel would bring such a page in.
  std::size_t copy(GuestVirt va, std::span<std::byte> into);

 private:
  Reader& reader_;
  AddressSpace space_;
  bool usable_ = false;
};

}  // namespace vmsight
