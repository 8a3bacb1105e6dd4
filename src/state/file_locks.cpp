#include "state/file_locks.h"

#include <fcntl.h>

#include "state/lists.h"

namespace vmsight {

namespace {

constexpr std::uint64_t offset_max =
    0x7fff'ffff'ffff'ffff;                      // OFFSET_MAX: up to the end of the file
constexpr std::uint32_t of_open_file = 1024;    // FL_OFDLCK: no process has it, says /proc/locks
constexpr std::string_view strengths = "rRwW";  // the later the stronger
// A program may lock each byte of a file by itself: what lies behind so many is not looked at, and
// never costs others that have the file open their records.
constexpr std::size_t max_locks = 1u << 14;

}  // namespace

Result<FileLocks> FileLocks::resolve(Kernel& kernel) {
  Members members(kernel);
  FileLocks locks;
  // Since 6.9 most of a lock is a struct file_lock_core at its beginning.
  locks.at_ = {
      .flock = members.offset("file_lock_context", "flc_flock"),
      .posix = members.offset("file_lock_context", "flc_posix"),
      .list = members.offset("file_lock", {"c.flc_list", "fl_list"}),
      .pid = members.offset("file_lock", {"c.flc_pid", "fl_pid"}),
      .type = members.offset("file_lock", {"c.flc_type", "fl_type"}),
      .flags = members.offset("file_lock", {"c.flc_flags", "fl_flags"}),
      .start = members.offset("file_lock", "fl_start"),
      .end = members.offset("file_lock", "fl_end"),
  };
  VMSIGHT_TRY_VOID(members.check());
  return locks;
}

char FileLocks::letter(Reader& reader, GuestVirt context, std::int32_t tgid) const {
  char strongest = 0;
  look(reader, context + at_.flock, tgid, strongest);
  look(reader, context + at_.posix, tgid, strongest);
  return strongest;
}

void FileLocks::look(Reader& reader, GuestVirt head, std::int32_t tgid, char& strongest) const {
  GuestVirt node = reader.pointer(head);
  for (std::size_t seen = 0; seen < max_locks && node != head && reader.ok(); ++seen) {
    const GuestVirt lock = node - at_.list;
    node = reader.pointer(node);
    if (static_cast<std::int32_t>(reader.u32(lock + at_.pid)) != tgid) continue;
    if ((reader.u32(lock + at_.flags) & of_open_file) != 0) continue;
    const bool whole =
        reader.u64(lock + at_.start) == 0 && reader.u64(lock + at_.end) == offset_max;
    const bool writes = reader.u8(lock + at_.type) == F_WRLCK;
    const char letter = writes ? (whole ? 'W' : 'w') : (whole ? 'R' : 'r');
    if (strongest == 0 || strengths.find(letter) > strengths.find(strongest)) strongest = letter;
  }
}

}  // namespace vmsight
