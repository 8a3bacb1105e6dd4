#include "state/file_objects.h"

namespace vmsight {

namespace {
constexpr std::uint32_t fmode_backing = 1u << 25;  // FMODE_BACKING, include/linux/fs.h since 6.6
}  // namespace

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
      .i_mode = members.offset("inode", "i_mode"),
      .i_ino = members.offset("inode", "i_ino"),
      .i_sb = members.offset("inode", "i_sb"),
      .i_size = members.offset("inode", "i_size"),
      .s_dev = members.offset("super_block", "s_dev"),
  };
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

GuestVirt FileObjects::mapped_path_of(Reader& reader, GuestVirt file) const {
  const bool backing = at_.user_path != absent &&
                       (reader.u32(file + at_.f_mode) & fmode_backing) != 0;
  return backing ? file + at_.user_path : path_of(file);
}

}  // namespace vmsight
