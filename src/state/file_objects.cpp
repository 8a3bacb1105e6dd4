#include "state/file_objects.h"

namespace vmsight {

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
      .s_dev = members.offset("super_block", "s_dev"),
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
      .mode = reader.u16(inode + at_.i_mode),
  };
}

FileObjects::Mapped FileObjects::mapped(Reader& reader, GuestVirt file) const {
  const bool backing =
      at_.user_path != absent && (reader.u32(file + at_.f_mode) & backing_flag_) != 0;
  if (!backing) return {path_of(file), inode_of(reader, file)};
  const GuestVirt path = file + at_.user_path;
  return {path, reader.pointer(reader.pointer(path + at_.path_dentry) + at_.d_inode)};
}

}  // namespace vmsight
