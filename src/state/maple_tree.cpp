#include "state/maple_tree.h"

namespace vmsight {

Result<MapleTree> MapleTree::resolve(Kernel& kernel) {
  Members members(kernel);
  MapleTree tree;
  tree.root_ = members.offset("maple_tree", "ma_root");
  const auto shape = [&](std::string_view type) {
    Shape result;
    const auto pivots = kernel.member(type, "pivot"), slots = kernel.member(type, "slot");
    result.pivots = members.offset(type, "pivot");
    result.slots = members.offset(type, "slot");
    if (!pivots || !slots) return result;
    result.pivot_count = std::min(pivots->count, max_slots);
    result.slot_count = std::min(slots->count, max_slots);
    return result;
  };
  tree.range_ = shape("maple_range_64");
  tree.arange_ = shape("maple_arange_64");
  VMSIGHT_TRY_VOID(members.check());
  return tree;
}

const MapleTree::Shape* MapleTree::load(Reader& reader, std::uint64_t tagged, Node& node) const {
  const unsigned type = (tagged >> 3) & 15;
  if (type != leaf_64 && type != range_64 && type != arange_64) return nullptr;
  const Shape& shape = type == arange_64 ? arange_ : range_;
  const GuestVirt at(tagged & node_mask);
  const auto bytes = [](auto& array, unsigned count) {
    return std::as_writable_bytes(std::span(array).first(count));
  };
  reader.copy(at + shape.pivots, bytes(node.pivots, shape.pivot_count));
  reader.copy(at + shape.slots, bytes(node.slots, shape.slot_count));
  return reader.ok() ? &shape : nullptr;
}

}  // namespace vmsight
