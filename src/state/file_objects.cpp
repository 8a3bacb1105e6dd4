#include "state/file_objects.h"

#include <sys/stat.h>

namespace vmsight {

std::string_view file_type_name(std::uint16_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "REG";
    case S_IFDIR:
      return "DIR";
    case S_IFCHR:
      return "CHR";
    case S_IFBLK:
      return "BLK";
    case S_IFIFO:
      return "FIFO";
    case S_IFSOCK:
      return "SOCK";
    case S_IFLNK:
      return "LNK";
    default:
      return "ANON";
  }
}

Result<FileObjects> FileObjects::resolve(Kernel& kernel) {
  Members members(kernel);
  FileObjects files;
  files.at_ = {
      .f_path = members.offset("file", {"f_path", "__f_path"}),
      .f_inode = members.offset("file", "f_inode"),
      .f_flags = members.offset("file", "f_flags"),
      .f_mode = members.offset("file", "f_mode"),
      .f_pos = members.offset("file", "f_pos"),
      .private_data = members.offset("file", "private_data"),
      .user_path = members.find("backing_file", "user_path"),
      .path_dentry = members.offset("path", "dentry"),
      .d_inode = members.offset("dentry", "d_inode"),
      .i_mode = members.offset("inode", "i_mode"),
      .i_ino = members.offset("inode", "i_ino"),
      .i_sb = members.offset("inode", "i_sb"),
      .i_size = members.offset("inode", "i_size"),
      .i_rdev = members.offset("inode", "i_rdev"),
      .i_nlink = members.offset("inode", {"i_nlink", "__i_nlink"}),
      .s_dev = members.offset("super_block", "s_dev"),
      .i_flctx = members.find("inode", "i_flctx"),
      .i_private = members.offset("inode", "i_private"),
  };
  // FMODE_BACKING of include/linux/fs.h went from bit 25 to bit 24 in 6.14; the nearest change
  // to a structure is the file reference of 6.13.
  files.backing_flag_ = members.find("file", "f_ref") == absent ? 1u << 25 : 1u << 24;
  VMSIGHT_TRY_VOID(members.check());
  return files;
}

FileObjects::Inode FileObjects::read_inode(Reader& reader, GuestVirt inode) const {
  return {
      .number = reader.u64(inode + at_.i_ino),
      .device = reader.u32(reader.pointer(inode + at_.i_sb) + at_.s_dev),
      .size = reader.u64(inode + at_.i_size),
      .rdev = reader.u32(inode + at_.i_rdev),
      .links = reader.u32(inode + at_.i_nlink),
      .mode = reader.u16(inode + at_.i_mode),
      .locks = at_.i_flctx == absent ? GuestVirt(0) : reader.pointer(inode + at_.i_flctx),
  };
}

std::optional<FileFacts> FileObjects::facts_of(Reader& reader, PathRef path) const {
  if (path.dentry.raw() == 0) return std::nullopt;
  const GuestVirt inode = reader.pointer(path.dentry + at_.d_inode);
  if (inode.raw() == 0) return std::nullopt;
  const FileFacts facts = read_inode(reader, inode).facts();
  return reader.ok() ? std::optional(facts) : std::nullopt;
}

FileObjects::Mapped FileObjects::mapped(Reader& reader, GuestVirt file) const {
  const bool backing =
      at_.user_path != absent && (reader.u32(file + at_.f_mode) & backing_flag_) != 0;
  if (!backing) return {path_of(file), inode_of(reader, file)};
  const GuestVirt path = file + at_.user_path;
  return {path, reader.pointer(reader.pointer(path + at_.path_dentry) + at_.d_inode)};
}

}  // namespace vmsight
