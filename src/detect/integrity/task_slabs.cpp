#include "detect/integrity/task_slabs.h"

#include <algorithm>

#include <fmt/format.h>

#include "state/members.h"

namespace vmsight {
namespace {

constexpr unsigned order_shift = 16, max_order = 10;  // OO_SHIFT, mm/slub.c
constexpr std::uint64_t max_frames = 1ULL << 22;      // 16 GiB; their table has 256 MiB
constexpr std::size_t max_slots = 1U << 22;

struct TaskCache {
  GuestVirt at;
  Offset slab_cache = 0;  // in struct slab, or before 5.17 in struct page
  std::uint32_t page_size = 0, object_size = 0, objects = 0, red_left_pad = 0;
  std::uint64_t step = 1;  // frames: the smallest slab
};

Result<TaskCache> find_cache(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  TaskCache cache;
  const GuestVirt pointer = members.symbol("task_struct_cachep");
  const Offset size = members.offset("kmem_cache", "size");
  const Offset usual = members.offset("kmem_cache", "oo");
  const Offset least = members.offset("kmem_cache", "min");
  const Offset pad = members.find("kmem_cache", "red_left_pad");
  cache.page_size = members.size("page");
  const Offset of_slab = members.find("slab", "slab_cache");
  cache.slab_cache = of_slab != absent ? of_slab : members.offset("page", "slab_cache");
  VMSIGHT_TRY_VOID(members.check());
  cache.at = reader.pointer(pointer);
  cache.object_size = reader.u32(cache.at + size);
  cache.objects = reader.u32(cache.at + usual) & 0xffff;
  if (pad != absent) cache.red_left_pad = reader.u32(cache.at + pad);
  const std::uint32_t order = reader.u32(cache.at + least) >> order_shift;
  if (!reader.ok())
    return Error{.code = ErrorCode::fault, .message = "task_struct_cachep is not readable"};
  if (order > max_order || cache.object_size < 512 || cache.page_size == 0)
    return Error{.code = ErrorCode::bad_data, .message = "task_struct_cachep makes no sense"};
  cache.step = 1ULL << order;
  return cache;
}

}  // namespace

Result<std::string> for_each_task_slot(Kernel& kernel, Reader& reader,
                                       const std::function<void(GuestVirt)>& visit) {
  VMSIGHT_TRY(const TaskCache cache, find_cache(kernel, reader));
  std::uint64_t frames = 0;
  std::size_t slots = 0;
  for (const RamRange& range : reader.memory().ram().ranges()) {
    const std::uint64_t end = range.end().pfn();
    for (std::uint64_t frame = (range.start.pfn() + cache.step - 1) / cache.step * cache.step;
         frame < end; frame += cache.step) {
      if ((frames += cache.step) > max_frames)
        return std::string("slabs were looked for in the first 16 GiB only");
      const GuestVirt page = kernel.vmemmap() + frame * cache.page_size;
      const GuestVirt owner = reader.pointer(page + cache.slab_cache);
      if (!reader.ok()) reader.clear_fault();
      if (owner != cache.at) continue;
      const GuestVirt first = kernel.page_offset() + frame * page_size + cache.red_left_pad;
      for (std::uint32_t i = 0; i < cache.objects; ++i) {
        if (++slots > max_slots) return std::string("there are more slabs than a kernel has");
        visit(first + std::uint64_t{i} * cache.object_size);
      }
    }
  }
  return std::string();
}

}  // namespace vmsight
