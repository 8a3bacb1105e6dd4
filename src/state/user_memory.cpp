#include "state/user_memory.h"

#include "kernel/read_log.h"

namespace vmsight {

UserMemory::UserMemory(Reader& reader, GuestVirt pgd) : reader_(reader) {
  const auto table = reader.space().translate(reader.memory(), pgd);
  if (!table) return;
  space_ = reader.space().with_root(table->page());
  usable_ = true;
}

std::size_t UserMemory::copy(GuestVirt va, std::span<std::byte> into) {
  if (!usable_) return 0;
  const std::size_t size = space_.copy(reader_.memory(), va, into);
  if (ReadLog* log = reader_.log())
    log->note_user(space_.root(), va, into.first(size), size < into.size());
  return size;
}

}  // namespace vmsight
