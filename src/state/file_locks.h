// Locks on files, as /proc/locks lists them.
//
//   inode -> file_lock_context -> lists of file_lock: of flock(2), and of fcntl(2)
//
// A lock belongs to a process (or, for those of open file descriptions, to nobody).
#pragma once

#include "state/members.h"
#include "vmsight/reader.h"

namespace vmsight {

class FileLocks {
 public:
  static Result<FileLocks> resolve(Kernel& kernel);

  /// The letter of lsof for the locks that process `tgid` holds: R, W, r, w (OpenFile::lock), 0 for
  /// none. Of several the strongest: writing before reading, the whole file before a part.
  char letter(Reader& reader, GuestVirt context, std::int32_t tgid) const;

 private:
  void look(Reader& reader, GuestVirt head, std::int32_t tgid, char& strongest) const;

  struct Offsets {
    Offset flock, posix;  // of file_lock_context: list_heads
    Offset list, pid, type, flags, start, end;
  } at_{};
};

}  // namespace vmsight
