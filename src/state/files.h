// Open files: task -> files_struct -> fdtable -> slots of struct file.
//
//   fdtable   open_fds       a bit for each number in use
//             close_on_exec  a bit for each that exec closes
//             fd             max_fds pointers to struct file
#pragma once

#include "state/file_locks.h"
#include "state/file_objects.h"
#include "state/file_targets.h"

namespace vmsight {

class FilesReader {
 public:
  static Result<FilesReader> resolve(Kernel& kernel, const FileObjects& objects);

  /// Appends the open files of one descriptor table, ascending; its sockets to
  /// context.socket_files too. `files` is the files_struct that thread `tid` of the process uses. A
  /// fault leaves what was read before it.
  void read(ProcessContext& process, std::int32_t pid, std::int32_t tid, GuestVirt files) const;

 private:
  struct Table {
    std::int32_t pid = 0, tid = 0;
    GuestVirt slots;
  };
  void prove_slots(ProcessContext& process, const Table& table, std::uint32_t first,
                   std::uint64_t bits) const;
  void read_slot(ProcessContext& process, const Table& table, std::uint32_t fd,
                 bool close_on_exec) const;

  FileObjects objects_;
  FileLocks locks_;
  FileTargets targets_;
  struct Offsets {
    Offset fdt, max_fds, fd, open_fds, close_on_exec;
  } at_{};
};

}  // namespace vmsight
