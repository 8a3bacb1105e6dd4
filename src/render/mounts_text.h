// Mounts as `findmnt` prints them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

enum class MountLayout : std::uint8_t { tree, list, raw, pairs, json };
enum class MountColumn : std::uint8_t {
  target,
  source,
  fstype,
  options,
  vfs_options,
  fs_options,
  device,
  fsroot,
  id,
  parent,
  opt_fields,
  propagation,
  mntns,
};

/// "TARGET", "MAJ:MIN" ... as -o takes them, in the order of the enumerators.
std::span<const std::string_view> mount_column_names();
/// In upper or lower case; nullopt for what is no column here.
std::optional<MountColumn> mount_column(std::string_view name);

struct MountFormat {
  MountLayout layout = MountLayout::tree;
  std::vector<MountColumn> columns = {MountColumn::target, MountColumn::source, MountColumn::fstype,
                                      MountColumn::options};
  bool ascii = false;       // of the tree
  bool with_fsroot = true;  // "/dev/vda1[/subvolume]"
  TableOptions table;
};

/// Options of the mount and of its file system as one list, that begins with "ro" if either is.
std::string merged_options(const Mount& mount);

/// Those of state.mounts; a tree by parent, or in the order they have.
void print_mounts(Output& out, const State& state, const MountFormat& format);

}  // namespace vmsight
