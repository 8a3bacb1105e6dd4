// Open files as `lsof` prints them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

struct LsofFormat {
  bool terse = false;  // PIDs only
  bool parents = false, groups = false, links = false;
  bool sizes = false, offsets = false;  // only these in SIZE/OFF
  bool tasks = false;                   // rows of each thread
  std::size_t command_width = 0;        // 0: whole
  TableOptions table;
};

/// Joins open files with sockets, maps and processes of the same state.
void print_open_files(Output& out, const State& state, const LsofFormat& format);

/// What tells descriptors of all tables apart: the table's thread, and the number in it.
inline std::uint64_t lsof_slot(std::int32_t tid, std::int32_t fd) {
  return std::uint64_t{static_cast<std::uint32_t>(tid)} << 32 | static_cast<std::uint32_t>(fd);
}

/// Is a file mapped? Shared memory of System V may have the inode number 0.
inline bool is_mapped_file(const MemoryMap& map) {
  return map.inode != 0 || map.path.starts_with('/');
}

}  // namespace vmsight
