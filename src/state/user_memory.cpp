#include "state/user_memory.h"

namespace vmsight {

UserMemory::UserMemory(Reader& reader, GuestVirt pgd) : memory_(reader.memory()) {
  const auto table = reader.space().translate(reader.memory(), pgd);
  if (!table) return;
  space_ = reader.space().with_root(table->page());
  usable_ = true;
}

std::size_t UserMemory::copy(GuestVirt va, std::span<std::byte> into) {
  return usable_ ? space_.copy(memory_, va, into) : 0;
}

}  // namespace vmsight
