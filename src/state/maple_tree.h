// Walking a maple tree: since 6.1 the kernel keeps a process's memory areas in one.
//
//   ma_root -> node, tagged in its low byte: bits 3-6 are its type, the rest of the address is
//              256-byte aligned
//   node    -> pivots and slots; slot i covers (pivot[i-1], pivot[i]], the first one from the
//              node's own minimum, the last one to its maximum
//   leaf    -> slots are the stored pointers, or 0 for a gap
//
// Format: include/linux/maple_tree.h and the node diagrams in lib/maple_tree.c of Linux 6.1-7.2.
#pragma once

#include <cstdint>
#include <functional>

#include "state/members.h"
#include "vmsight/reader.h"

namespace vmsight {

class MapleTree {
 public:
  static Result<MapleTree> resolve(Kernel& kernel);

  /// An entry and the range of indices it is stored for, both ends included.
  struct Entry {
    GuestVirt pointer;
    std::uint64_t first = 0, last = 0;
  };

  /// Visits the entries of the tree in ascending order, each of them once; stops early if `visit`
  /// returns false. Faults the reader on anything that is not a tree.
  template <typename Visit>
  void walk(Reader& reader, GuestVirt tree, Visit&& visit) const {
    Walk state{reader, 0};
    const std::uint64_t root = reader.u64(tree + root_);
    if (root == 0 || !reader.ok()) return;
    if ((root & 3) != 2) {  // a single entry, for index 0 only
      visit(Entry{GuestVirt(root), 0, 0});
      return;
    }
    descend(state, root, 0, ~std::uint64_t{0}, 0, visit);
  }

 private:
  static constexpr unsigned max_height = 31;       // MAPLE_HEIGHT_MAX
  static constexpr unsigned max_slots = 32;        // 31 in the 32-bit layout; 16 here
  static constexpr unsigned max_nodes = 1u << 18;  // each area needs 1/8 node at worst
  static constexpr std::uint64_t node_mask = ~std::uint64_t{0xff};

  enum Type : unsigned { dense = 0, leaf_64 = 1, range_64 = 2, arange_64 = 3 };
  struct Shape {
    Offset pivots = 0, slots = 0;
    unsigned pivot_count = 0, slot_count = 0;
  };
  struct Walk {
    Reader& reader;
    unsigned nodes;
  };
  struct Node {
    std::array<std::uint64_t, max_slots> pivots, slots;
  };
  /// Copies a node's pivots and slots; nullptr if there is no such type.
  const Shape* load(Reader& reader, std::uint64_t tagged, Node& node) const;

  template <typename Visit>
  bool descend(Walk& state, std::uint64_t tagged, std::uint64_t min, std::uint64_t max,
               unsigned height, Visit&& visit) const {
    Node node;
    const Shape* shape = height < max_height && ++state.nodes < max_nodes
                             ? load(state.reader, tagged, node)
                             : nullptr;
    if (shape == nullptr) {
      state.reader.set_fault(GuestVirt(tagged));
      return false;
    }
    const bool leaf = ((tagged >> 3) & 15) == leaf_64;
    std::uint64_t first = min;
    for (unsigned i = 0; i < shape->slot_count; ++i) {
      std::uint64_t last = i < shape->pivot_count ? node.pivots[i] : max;
      if (i > 0 && last == 0) last = max;  // unused pivots are 0: the rest of the node
      if (last < first || last > max) {
        state.reader.set_fault(GuestVirt(tagged));
        return false;
      }
      if (node.slots[i] != 0) {
        if (leaf) {
          if (!visit(Entry{GuestVirt(node.slots[i]), first, last})) return false;
        } else if (!descend(state, node.slots[i], first, last, height + 1, visit)) {
          return false;
        }
      }
      if (last >= max) break;
      first = last + 1;
    }
    return true;
  }

  Offset root_ = 0;
  Shape range_{}, arange_{};
};

}  // namespace vmsight
