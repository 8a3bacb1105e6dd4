#include "state/maps.h"

namespace vmsight {

namespace {

// include/linux/mm.h
constexpr std::uint64_t vm_read = 1, vm_write = 2, vm_exec = 4, vm_may_share = 0x80;
constexpr std::uint64_t vm_hugetlb = 0x400000;
// MM_CONTEXT_HAS_VSYSCALL, arch/x86/include/asm/mmu.h
constexpr std::uint16_t context_has_vsyscall = 2;
constexpr std::uint32_t vsyscall_none = 2;          // EMULATE, XONLY, NONE in vsyscall_64.c
constexpr std::uint64_t rwsem_writer_locked = 1;    // kernel/locking/rwsem.c
constexpr std::uint32_t rt_writer_bias = 1U << 30;  // WRITER_BIAS, include/linux/rwbase_rt.h
constexpr std::size_t max_areas = 1u << 22;
constexpr std::size_t max_user_name = 256;  // ANON_VMA_NAME_MAX_LEN is 80

void set_perms(MemoryMap& map, std::uint64_t flags) {
  map.perms[0] = (flags & vm_read) != 0 ? 'r' : '-';
  map.perms[1] = (flags & vm_write) != 0 ? 'w' : '-';
  map.perms[2] = (flags & vm_exec) != 0 ? 'x' : '-';
  map.perms[3] = (flags & vm_may_share) != 0 ? 's' : 'p';
}

}  // namespace

Result<MapsReader> MapsReader::resolve(Kernel& kernel, const FileObjects& objects) {
  Members members(kernel);
  MapsReader maps;
  maps.objects_ = objects;
  maps.at_ = {
      .mm_tree = members.find("mm_struct", "mm_mt"),
      .mm_list = members.find("mm_struct", "mmap"),
      .map_count = members.offset("mm_struct", "map_count"),
      .total_vm = members.offset("mm_struct", "total_vm"),
      .change_count =
          members.find("mm_struct", {"mm_lock_seq.sequence", "mm_lock_seq", "vmacache_seqnum"}),
      .lock_count = members.find("mm_struct", "mmap_lock.count"),
      .lock_readers = members.find("mm_struct", {"mmap_lock.rwbase.readers", "mmap_lock.readers"}),
      .start_brk = members.offset("mm_struct", "start_brk"),
      .brk = members.offset("mm_struct", "brk"),
      .start_stack = members.offset("mm_struct", "start_stack"),
      .context_flags = members.find("mm_struct", "context.flags"),
      .ia32_compat = members.find("mm_struct", "context.ia32_compat"),
      .vm_start = members.offset("vm_area_struct", "vm_start"),
      .vm_end = members.offset("vm_area_struct", "vm_end"),
      .vm_next = members.find("vm_area_struct", "vm_next"),
      .vm_mm = members.offset("vm_area_struct", "vm_mm"),
      .vm_flags = members.offset("vm_area_struct", {"vm_flags", "flags"}),
      .vm_pgoff = members.offset("vm_area_struct", "vm_pgoff"),
      .vm_file = members.offset("vm_area_struct", "vm_file"),
      .vm_ops = members.offset("vm_area_struct", "vm_ops"),
      .vm_private_data = members.offset("vm_area_struct", "vm_private_data"),
      .ops_name = members.offset("vm_operations_struct", "name"),
      .special_name = members.offset("vm_special_mapping", "name"),
      .anon_name = members.find("vm_area_struct", "anon_name"),
      .anon_name_text = members.find("anon_vma_name", "name"),
  };
  // Until 6.1 the name shares its place with the links of file areas.
  maps.anon_names_are_private_ = maps.at_.anon_name != absent &&
                                 maps.at_.anon_name == members.find("vm_area_struct", "shared");
  // vma_is_initial_heap() excludes areas that only touch since 6.8; the nearest change to a
  // structure is the lock sequence of 6.4.
  maps.heap_touches_ = members.find("mm_struct", "mm_lock_seq") == absent;
  maps.special_mapping_name_ = members.find_symbol("special_mapping_name");
  maps.gate_area_ = members.find_symbol("gate_vma");
  maps.vsyscall_mode_ = members.find_symbol("vsyscall_mode");
  if (maps.at_.mm_tree != absent) {
    VMSIGHT_TRY(maps.tree_, MapleTree::resolve(kernel));
  } else if (maps.at_.mm_list == absent || maps.at_.vm_next == absent) {
    maps.at_.mm_list = members.offset("mm_struct", "mmap");
    maps.at_.vm_next = members.offset("vm_area_struct", "vm_next");
  }
  VMSIGHT_TRY_VOID(members.check());
  if (auto residency = ResidencyReader::resolve(kernel)) maps.residency_ = *residency;
  return maps;
}

void MapsReader::read(ProcessContext& process, std::int32_t pid, GuestVirt mm) const {
  Reader& reader = process.reader();
  const bool was_whole = reader.ok();
  Space space{
      .pid = pid,
      .mm = mm,
      .start_brk = reader.u64(mm + at_.start_brk),
      .brk = reader.u64(mm + at_.brk),
      .start_stack = reader.u64(mm + at_.start_stack),
  };
  const auto expected = reader.u32(mm + at_.map_count);
  note_proofs(process, mm);
  const std::size_t before = process.state().memory_maps.size();
  if (tree_) {
    read_tree(process, space);
  } else {
    read_list(process, space);
  }
  const std::size_t found = process.state().memory_maps.size() - before;
  if (is_full(process.state().memory_maps, process.state().arena)) return;
  if (found != expected) reader.set_fault(mm + at_.map_count);
  if (was_whole && !reader.ok()) process.shared.maps_in_change = is_changed(reader, mm);
  if (has_gate(reader, mm)) read_gate(process, space);
}

/// Whether a task holds the lock of the maps to change them. Then the areas, the tree and the count of them may each be
/// of another moment, however well they are read.
bool MapsReader::is_changed(Reader& reader, GuestVirt mm) const {
  if (at_.lock_count != absent) return (reader.u64(mm + at_.lock_count) & rwsem_writer_locked) != 0;
  return at_.lock_readers != absent && reader.u32(mm + at_.lock_readers) == rt_writer_bias;
}

void MapsReader::note_proofs(ProcessContext& process, GuestVirt mm) const {
  Reader& reader = process.reader();
  const auto expect = [&](Offset offset) {
    if (offset != absent) process.proofs.expect(reader, mm + offset, reader.u32(mm + offset));
  };
  expect(at_.map_count);
  expect(at_.total_vm);
  expect(at_.change_count);
}

void MapsReader::read_list(ProcessContext& process, Space& space) const {
  Reader& reader = process.reader();
  GuestVirt area = reader.pointer(space.mm + at_.mm_list);
  std::uint64_t end = 0;
  for (std::size_t i = 0; area.raw() != 0 && reader.ok(); ++i) {
    // Ascending addresses: no cycle goes unnoticed.
    const std::uint64_t start = reader.u64(area + at_.vm_start);
    if (start < end || i == max_areas) return reader.set_fault(area);
    if (is_full(process.state().memory_maps, process.state().arena)) return;
    end = reader.u64(area + at_.vm_end);
    read_area(process, space, area);
    area = reader.pointer(area + at_.vm_next);
  }
}

void MapsReader::read_tree(ProcessContext& process, Space& space) const {
  Reader& reader = process.reader();
  tree_->walk(reader, space.mm + at_.mm_tree, [&](const MapleTree::Entry& entry) {
    if (is_full(process.state().memory_maps, process.state().arena)) return false;
    // The tree knows the area's range too: a torn or recycled area disagrees.
    if (reader.u64(entry.pointer + at_.vm_start) != entry.first ||
        reader.u64(entry.pointer + at_.vm_end) - 1 != entry.last) {
      reader.set_fault(entry.pointer);
      return false;
    }
    read_area(process, space, entry.pointer);
    return reader.ok();
  });
}

void MapsReader::read_area(ProcessContext& process, Space& space, GuestVirt area) const {
  Reader& reader = process.reader();
  if (reader.pointer(area + at_.vm_mm) != space.mm) reader.set_fault(area);
  MemoryMap map{
      .pid = space.pid,
      .start = reader.u64(area + at_.vm_start),
      .end = reader.u64(area + at_.vm_end),
  };
  if (map.start >= map.end) reader.set_fault(area);
  const std::uint64_t flags = reader.u64(area + at_.vm_flags);
  set_perms(map, flags);
  const GuestVirt file = reader.pointer(area + at_.vm_file);
  if (file.raw() == 0) {
    map.path = name(process, space, area, map);
  } else {
    if (file != space.file) {
      space.file = file;
      const FileObjects::Mapped shown = objects_.mapped(reader, file);
      space.inode = objects_.read_inode(reader, shown.inode);
      space.path = process.paths.path(process.paths.read(shown.path));
    }
    map.offset = reader.u64(area + at_.vm_pgoff) << page_shift;
    map.inode = space.inode.number;
    map.device = space.inode.device;
    map.path = space.path;
    map.type = space.inode.type();
    map.size = space.inode.size;
    map.links = space.inode.links;
    if (const auto named = user_name(process, area, "anon_shmem"); !named.empty()) map.path = named;
  }
  if (process.context.options.residency && residency_ && reader.ok()) {
    residency_->measure(process, space.mm, (flags & vm_hugetlb) != 0, map);
  }
  if (reader.ok()) process.state().memory_maps.push_back(map);
}

/// The name of an area without a file; "" if it has none.
std::string_view MapsReader::name(ProcessContext& process, Space& space, GuestVirt area,
                                  const MemoryMap& map) const {
  const std::string_view special = special_name(process, area);
  if (!special.empty()) return special;
  const bool heap = heap_touches_ ? map.start <= space.brk && map.end >= space.start_brk
                                  : map.start < space.brk && map.end > space.start_brk;
  if (heap) return "[heap]";
  if (map.start <= space.start_stack && map.end >= space.start_stack) return "[stack]";
  return user_name(process, area, "anon");
}

/// "[vdso]", "[vvar]" ... of areas that the kernel itself put there.
std::string_view MapsReader::special_name(ProcessContext& process, GuestVirt area) const {
  Reader& reader = process.reader();
  const GuestVirt operations = reader.pointer(area + at_.vm_ops);
  if (operations.raw() == 0) return "";
  const GuestVirt function = reader.pointer(operations + at_.ops_name);
  if (function.raw() == 0 || function != special_mapping_name_) return "";
  const GuestVirt mapping = reader.pointer(area + at_.vm_private_data);
  char buffer[64];
  const auto text = reader.c_string(reader.pointer(mapping + at_.special_name), buffer);
  return process.context.arena().copy(text);
}

/// "[anon:NAME]", from prctl(PR_SET_VMA_ANON_NAME); "" if the user gave none.
std::string_view MapsReader::user_name(ProcessContext& process, GuestVirt area,
                                       std::string_view kind) const {
  if (at_.anon_name == absent || at_.anon_name_text == absent) return "";
  if (anon_names_are_private_ && kind != "anon") return "";
  Reader& reader = process.reader();
  const GuestVirt given = reader.pointer(area + at_.anon_name);
  if (given.raw() == 0) return "";
  char buffer[max_user_name];
  const auto text = reader.c_string(given + at_.anon_name_text, buffer);
  const auto whole = process.context.arena().allocate(kind.size() + text.size() + 3);
  fmt::format_to(whole.data(), "[{}:{}]", kind, text);
  return {whole.data(), whole.size()};
}

/// Does /proc show the [vsyscall] page, which is nobody's area, for this process?
bool MapsReader::has_gate(Reader& reader, GuestVirt mm) const {
  if (gate_area_.raw() == 0) return false;
  if (vsyscall_mode_.raw() != 0 && reader.u32(vsyscall_mode_) == vsyscall_none) return false;
  if (at_.context_flags != absent) {
    return (reader.u16(mm + at_.context_flags) & context_has_vsyscall) != 0;
  }
  return at_.ia32_compat == absent || reader.u16(mm + at_.ia32_compat) == 0;
}

void MapsReader::read_gate(ProcessContext& process, const Space& space) const {
  Reader& reader = process.reader();
  MemoryMap map{
      .pid = space.pid,
      .start = reader.u64(gate_area_ + at_.vm_start),
      .end = reader.u64(gate_area_ + at_.vm_end),
      .path = "[vsyscall]",
  };
  set_perms(map, reader.u64(gate_area_ + at_.vm_flags));
  if (process.context.options.residency) map.rss_bytes = map.dirty_bytes = 0;  // no process's page
  if (reader.ok()) process.state().memory_maps.push_back(map);
}

}  // namespace vmsight
