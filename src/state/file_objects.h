// What a struct file tells, wherever it is met: in a file table, behind a memory area.
#pragma once

#include "state/process_context.h"

namespace vmsight {

/// "REG" "DIR" ... of the mode of an inode; "ANON" for those that have no type.
std::string_view file_type_name(std::uint16_t mode);

class FileObjects {
 public:
  static Result<FileObjects> resolve(Kernel& kernel);

  struct Inode {
    std::uint64_t number = 0, device = 0, size = 0;
    std::uint64_t rdev = 0;
    std::uint32_t links = 0;
    std::uint16_t mode = 0;
    GuestVirt locks;  // its struct file_lock_context, null if nobody ever locked it

    std::string_view type() const { return file_type_name(mode); }
    FileFacts facts() const { return {type(), number, device, size, rdev, links}; }
  };
  GuestVirt inode_of(Reader& reader, GuestVirt file) const {
    return reader.pointer(file + at_.f_inode);
  }
  Inode read_inode(Reader& reader, GuestVirt inode) const;
  /// What stat says of the file at a path; nullopt if there is none, or with a fault.
  std::optional<FileFacts> facts_of(Reader& reader, PathRef path) const;

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
    Offset i_mode, i_ino, i_sb, i_size, i_rdev, i_nlink, s_dev;
    Offset i_flctx;  // absent in a kernel that is built without file locks
    Offset i_private;
  };
  const Offsets& at() const { return at_; }

 private:
  Offsets at_{};
  std::uint32_t backing_flag_ = 0;  // in f_mode
};

}  // namespace vmsight
