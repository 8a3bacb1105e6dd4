#include <algorithm>
#include <cstring>

#include "kernel/architecture.h"

namespace vmsight {

const Architecture& AddressSpace::architecture() const {
  VMSIGHT_CHECK(architecture_ != nullptr);
  return *architecture_;
}

AddressSpace AddressSpace::with_root(GuestPhys root) const {
  AddressSpace other;
  other.architecture_ = architecture_;
  other.root_ = root;
  other.levels_ = levels_;
  return other;
}

std::optional<AddressSpace::Walk> AddressSpace::walk(GuestMemory& memory, GuestVirt va) const {
  if (architecture_ == nullptr) return std::nullopt;
  return architecture_->walk(memory, *this, va, nullptr);
}

void AddressSpace::append_tables(GuestMemory& memory, GuestVirt va,
                                 std::vector<GuestPhys>& into) const {
  if (architecture_ == nullptr || direct_map_.contains(va) || image_.contains(va)) return;
  architecture_->walk(memory, *this, va, &into);
}

std::optional<GuestPhys> AddressSpace::translate(GuestMemory& memory, GuestVirt va) const {
  if (direct_map_.contains(va)) return GuestPhys(va.raw() - direct_map_.delta);
  if (image_.contains(va)) return GuestPhys(va.raw() - image_.delta);
  const auto found = walk(memory, va);
  if (!found) return std::nullopt;
  return found->address;
}

std::size_t AddressSpace::copy(GuestMemory& memory, GuestVirt from,
                               std::span<std::byte> into) const {
  std::size_t done = 0;
  while (done < into.size()) {
    const GuestVirt va = from + done;
    const auto at = translate(memory, va);
    const std::byte* page = at ? memory.page(*at) : nullptr;
    if (page == nullptr) break;
    const std::size_t length =
        std::min<std::size_t>(page_size - va.page_offset(), into.size() - done);
    std::memcpy(into.data() + done, page + va.page_offset(), length);
    done += length;
  }
  return done;
}

}  // namespace vmsight
