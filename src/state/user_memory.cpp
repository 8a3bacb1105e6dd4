#include "state/user_memory.h"

#include <algorithm>
#include <cstring>

namespace vmsight {

UserMemory::UserMemory(Reader& reader, GuestVirt pgd) : memory_(reader.memory()) {
  const auto table = reader.space().translate(reader.memory(), pgd);
  if (!table) return;
  space_ = AddressSpace(table->page(), reader.space().five_level());
  usable_ = true;
}

std::size_t UserMemory::copy(GuestVirt va, std::span<std::byte> into) {
  std::size_t done = 0;
  while (usable_ && done < into.size()) {
    const GuestVirt from = va + done;
    const auto at = space_.translate(memory_, from);
    const std::byte* page = at ? memory_.page(*at) : nullptr;
    if (page == nullptr) break;
    const std::size_t length =
        std::min<std::size_t>(page_size - from.page_offset(), into.size() - done);
    std::memcpy(into.data() + done, page + from.page_offset(), length);
    done += length;
  }
  return done;
}

}  // namespace vmsight
