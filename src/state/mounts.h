// Mounts of every mount namespace, as /proc/PID/mountinfo of a process in it shows them.
//
// Until 6.7 a namespace has a list of its mounts, since 6.8 a red-black tree ordered by their ids.
#pragma once

#include <optional>
#include <vector>

#include "state/fs_options.h"
#include "state/process_context.h"

namespace vmsight {

class MountsReader {
 public:
  static Result<MountsReader> resolve(Kernel& kernel);

  /// Appends the mounts of each namespace that can be reached from its root directory. One whose
  /// mounts do not hold together costs the others nothing: its number is in the answer, with where
  /// it broke.
  struct Broken {
    std::uint64_t inode = 0;
    GuestVirt at;
  };
  std::vector<Broken> read(Context& context, Paths& paths, const Shared& shared) const;

 private:
  using Visit = std::function<void(GuestVirt mount)>;
  /// What one view has learnt: super blocks are shared by many mounts.
  struct View {
    const Shared& shared;
    FlatMap<std::string_view> options;         // by super block; without data: they cannot be told
    std::vector<std::string_view> untellable;  // types of file systems that a problem names
  };
  void resolve_propagation(Members& members);
  void read_namespace(Context& context, const MountNamespace& ns, const Visit& visit) const;
  void each_in_list(Reader& reader, GuestVirt ns, const Visit& visit) const;
  void each_in_tree(Reader& reader, GuestVirt ns, const Visit& visit) const;
  void read_mount(Context& context, Paths& paths, const MountNamespace& ns, GuestVirt mount,
                  View& view) const;
  std::string_view file_system(Context& context, GuestVirt super) const;
  std::string_view options(Context& context, GuestVirt vfsmount) const;
  std::string_view super_options(Context& context, GuestVirt super, std::string_view type,
                                 View& view) const;
  void read_propagation(Context& context, Paths& paths, const MountNamespace& ns, GuestVirt mount,
                        const View& view, Mount& into) const;
  std::uint32_t dominating_group(Context& context, Paths& paths, const MountNamespace& ns,
                                 GuestVirt mount, const View& view) const;
  std::string_view text(Context& context, GuestVirt from) const;

  struct Offsets {
    Offset list, mount_list;                  // until 6.7
    Offset tree, mount_node, left, right;     // since 6.8
    Offset mnt, parent, devname, id;          // of mount
    Offset root, super, flags, idmap;         // of vfsmount
    Offset device, type, subtype, type_name;  // of super_block, file_system_type
  } at_{};
  Offset group_ = 0, master_ = 0, share_ = 0, namespace_ = 0;  // of mount
  Member propagation_flags_;                                   // of mount, else vfsmount.mnt_flags
  bool flags_of_mount_ = false;
  std::uint64_t shared_ = 0, unbindable_ = 0;
  FsOptions fs_options_;
  GuestVirt no_idmap_{};  // what vfsmount.mnt_idmap is if the mount maps no ids
};

}  // namespace vmsight
