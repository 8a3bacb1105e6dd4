#include "detect/integrity/vmap_areas.h"

#include <algorithm>

#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_areas = 1U << 20;
constexpr std::uint32_t max_vmap_nodes = 1U << 10;  // of trees; the kernel makes 128 at most

Error faulty_areas() {
  return {.code = ErrorCode::fault, .message = "the tree of vmap areas is not readable"};
}

class AreaTrees {
 public:
  static Result<AreaTrees> resolve(Kernel& kernel, Reader& reader) {
    AreaTrees self(reader);
    Members members(kernel);
    self.node_ = members.offset("vmap_area", "rb_node");
    self.start_ = members.offset("vmap_area", "va_start");
    self.end_ = members.offset("vmap_area", "va_end");
    self.vm_ = members.offset("vmap_area", "vm");
    self.caller_ = members.offset("vm_struct", "caller");
    self.left_ = members.offset("rb_node", "rb_left");
    self.right_ = members.offset("rb_node", "rb_right");
    VMSIGHT_TRY_VOID(members.check());
    return self;
  }

  /// `root` is where the pointer to the tree's first node is.
  bool read(GuestVirt root, std::vector<VmapArea>& into) {
    std::vector<GuestVirt> left_over{reader_.pointer(root)};
    while (!left_over.empty() && reader_.ok()) {
      const GuestVirt at = left_over.back();
      left_over.pop_back();
      if (at == GuestVirt()) continue;
      if (into.size() == max_areas) return false;
      into.push_back(area(at - node_));
      left_over.push_back(reader_.pointer(at + left_));
      left_over.push_back(reader_.pointer(at + right_));
    }
    return reader_.ok();
  }

 private:
  explicit AreaTrees(Reader& reader) : reader_(reader) {}
  VmapArea area(GuestVirt at) {
    VmapArea found{reader_.pointer(at + start_), reader_.pointer(at + end_), GuestVirt()};
    const GuestVirt vm = reader_.pointer(at + vm_);
    // Some areas have no vm_struct (vm_map_ram); older kernels use the word for something else then.
    if (reader_.ok() && vm != GuestVirt()) {
      found.caller = reader_.pointer(vm + caller_);
      if (!reader_.ok()) reader_.clear_fault();
    }
    return found;
  }

  Reader& reader_;
  Offset node_ = 0, start_ = 0, end_ = 0, vm_ = 0, caller_ = 0, left_ = 0, right_ = 0;
};

}  // namespace

Result<std::vector<VmapArea>> read_vmap_areas(Kernel& kernel, Reader& reader) {
  VMSIGHT_TRY(AreaTrees trees, AreaTrees::resolve(kernel, reader));
  std::vector<VmapArea> areas;
  bool whole = true;
  if (const auto root = kernel.symbol("vmap_area_root")) {
    whole = trees.read(*root, areas);
  } else {
    Members members(kernel);
    const GuestVirt nodes = members.symbol("vmap_nodes");
    const GuestVirt count_at = members.symbol("nr_vmap_nodes");
    const Offset busy = members.offset("vmap_node", "busy.root");
    const std::uint32_t size = members.size("vmap_node");
    VMSIGHT_TRY_VOID(members.check());
    const GuestVirt first = reader.pointer(nodes);
    const std::uint32_t count = reader.u32(count_at);
    whole = count <= max_vmap_nodes;
    for (std::uint32_t i = 0; whole && i < count; ++i)
      whole = trees.read(first + std::uint64_t{i} * size + busy, areas);
  }
  if (!whole || !reader.ok()) return faulty_areas();
  std::ranges::sort(areas, {}, &VmapArea::start);
  return areas;
}

const VmapArea* find_area(const std::vector<VmapArea>& areas, GuestVirt address) {
  const auto after = std::ranges::upper_bound(areas, address, {}, &VmapArea::start);
  if (after == areas.begin()) return nullptr;
  const VmapArea& area = *std::prev(after);
  return address < area.end ? &area : nullptr;
}

}  // namespace vmsight
