// What a struct file tells, wherever it is met: in a file table, behind a memory area.
#pragma once

#include "state/process_context.h"

namespace vmsight {

class FileObjects {
 public:
  static Result<FileObjects> resolve(Kernel& kernel);

  struct Inode {
    std::uint64_t number = 0, device = 0, size = 0;
    std::uint16_t mode = 0;
  };
  GuestVirt inode_of(Reader& reader, GuestVirt file) const {
    return reader.pointer(file + at_.f_inode);
  }
  Inode read_inode(Reader& reader, GuestVirt inode) const;

  /// The f_path of a file, kept at this address.
  GuestVirt path_of(GuestVirt file) const { return file + at_.f_path; }

  /// What a memory area of this file shows. Where a stacked file system (overlayfs) opened the
  /// file for another one, that is the file the user knows.
  struct Mapped {
    GuestVirt path;  // where its struct path is
    GuestVirt inode;
  };
  Mapped mapped(Reader& reader, GuestVirt file) const;

  /// Offsets for the file table's hot loop.
  struct Offsets {
    Offset f_path, f_inode, f_flags, f_mode, f_pos, private_data;
    Offset user_path;  // struct backing_file; absent before 6.8
    Offset path_dentry, d_inode;
    Offset i_mode, i_ino, i_sb, i_size, s_dev;
  };
  const Offsets& at() const { return at_; }

 private:
  Offsets at_{};
  std::uint32_t backing_flag_ = 0;  // in f_mode
};

}  // namespace vmsight
