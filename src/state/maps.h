// Memory areas of a process: the lines of /proc/PID/maps.
//
// Until 6.0 the areas form a list (mm_struct.mmap), since 6.1 a maple tree (mm_struct.mm_mt).
#pragma once

#include <optional>

#include "state/file_objects.h"
#include "state/maple_tree.h"
#include "state/residency.h"

namespace vmsight {

class MapsReader {
 public:
  static Result<MapsReader> resolve(Kernel& kernel, const FileObjects& objects);

  /// Appends the areas of one mm_struct, ascending. A fault leaves what was read before it.
  void read(ProcessContext& process, std::int32_t pid, GuestVirt mm) const;

 private:
  /// What many areas of one process share.
  struct Space {
    std::int32_t pid = 0;
    GuestVirt mm;
    std::uint64_t start_brk = 0, brk = 0, start_stack = 0;
    GuestVirt file{};  // of the area before, and what it told
    std::string_view path;
    FileObjects::Inode inode;
  };
  void read_list(ProcessContext& process, Space& space) const;
  void read_tree(ProcessContext& process, Space& space) const;
  void read_area(ProcessContext& process, Space& space, GuestVirt area) const;
  void read_gate(ProcessContext& process, const Space& space) const;
  bool has_gate(Reader& reader, GuestVirt mm) const;
  std::string_view name(ProcessContext& process, Space& space, GuestVirt area,
                        const MemoryMap& map) const;
  std::string_view user_name(ProcessContext& process, GuestVirt area, std::string_view kind) const;
  std::string_view special_name(ProcessContext& process, GuestVirt area) const;
  bool is_changed(Reader& reader, GuestVirt mm) const;
  void note_proofs(ProcessContext& process, GuestVirt mm) const;

  FileObjects objects_;
  std::optional<ResidencyReader> residency_;
  std::optional<MapleTree> tree_;
  struct Offsets {
    Offset mm_tree, mm_list, map_count, total_vm, change_count;
    Offset lock_count, lock_readers;
    Offset start_brk, brk, start_stack, context_flags, ia32_compat;
    Offset vm_start, vm_end, vm_next, vm_mm, vm_flags, vm_pgoff, vm_file, vm_ops, vm_private_data;
    Offset ops_name, special_name;
    Offset anon_name, anon_name_text;
  } at_{};
  bool anon_names_are_private_ = false;  // only areas without a file carry a user's name
  bool heap_touches_ = false;            // an area that only touches the heap is [heap] too
  GuestVirt special_mapping_name_{};     // the function that names [vdso] and the like
  GuestVirt gate_area_{}, vsyscall_mode_{};
};

}  // namespace vmsight
