#include "state/mounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace vmsight {

namespace {

constexpr std::size_t max_mounts = 1u << 20;  // sysctl fs.mount-max is 100,000 by default
constexpr std::size_t max_tree_height = 64;   // of a balanced tree with 2^32 nodes
constexpr std::size_t max_text = 4096;

// include/linux/mount.h
constexpr std::uint32_t mnt_readonly = 0x40, mnt_cursor = 0x10000000;
constexpr std::uint32_t mnt_shared = 0x1000, mnt_unbindable = 0x2000;
constexpr std::size_t max_peers = 4096;  // of one group, and masters above it
// In the order of show_mnt_opts() in fs/proc_namespace.c.
constexpr struct {
  std::uint32_t flag;
  std::string_view name;
} option_names[] = {{0x01, ",nosuid"},     {0x02, ",nodev"},      {0x04, ",noexec"},
                    {0x08, ",noatime"},    {0x10, ",nodiratime"}, {0x20, ",relatime"},
                    {0x80, ",nosymfollow"}};

}  // namespace

Result<MountsReader> MountsReader::resolve(Kernel& kernel) {
  Members members(kernel);
  MountsReader mounts;
  mounts.at_ = {
      .list = members.find("mnt_namespace", "list"),
      .mount_list = members.find("mount", "mnt_list"),
      .tree = members.find("mnt_namespace", "mounts.rb_node"),
      .mount_node = members.find("mount", "mnt_node"),
      .left = members.offset("rb_node", "rb_left"),
      .right = members.offset("rb_node", "rb_right"),
      .mnt = members.offset("mount", "mnt"),
      .parent = members.offset("mount", "mnt_parent"),
      .devname = members.offset("mount", "mnt_devname"),
      .id = members.offset("mount", "mnt_id"),
      .root = members.offset("vfsmount", "mnt_root"),
      .super = members.offset("vfsmount", "mnt_sb"),
      .flags = members.offset("vfsmount", "mnt_flags"),
      .idmap = members.find("vfsmount", {"mnt_idmap", "mnt_userns"}),
      .device = members.offset("super_block", "s_dev"),
      .type = members.offset("super_block", "s_type"),
      .subtype = members.find("super_block", "s_subtype"),
      .type_name = members.offset("file_system_type", "name"),
  };
  if (mounts.at_.tree == absent || mounts.at_.mount_node == absent) {
    mounts.at_.tree = absent;
    mounts.at_.list = members.offset("mnt_namespace", "list");
    mounts.at_.mount_list = members.offset("mount", "mnt_list");
  }
  mounts.group_ = members.offset("mount", "mnt_group_id");
  mounts.master_ = members.offset("mount", "mnt_master");
  mounts.share_ = members.offset("mount", "mnt_share");
  mounts.namespace_ = members.offset("mount", "mnt_ns");
  mounts.resolve_propagation(members);
  mounts.fs_options_ = FsOptions::resolve(members);
  mounts.no_idmap_ = members.find_symbol(kernel.member("vfsmount", "mnt_idmap") ? "nop_mnt_idmap"
                                                                                : "init_user_ns");
  VMSIGHT_TRY_VOID(members.check());
  return mounts;
}

/// Newer kernels keep how a mount propagates apart from the flags that a user gives it.
void MountsReader::resolve_propagation(Members& members) {
  Kernel& kernel = members.kernel();
  const auto own = kernel.member("mount", "mnt_t_flags");
  const auto shared = kernel.enumerator("T_SHARED"), unbindable = kernel.enumerator("T_UNBINDABLE");
  flags_of_mount_ = own && shared && unbindable;
  propagation_flags_ = flags_of_mount_ ? *own : members.member("vfsmount", "mnt_flags");
  shared_ = flags_of_mount_ ? static_cast<std::uint64_t>(*shared) : mnt_shared;
  unbindable_ = flags_of_mount_ ? static_cast<std::uint64_t>(*unbindable) : mnt_unbindable;
}

std::vector<MountsReader::Broken> MountsReader::read(Context& context, Paths& paths,
                                                     const Shared& shared) const {
  Reader& reader = context.reader;
  std::vector<Broken> broken;
  View view{shared, {}, {}};
  for (const MountNamespace& ns : shared.mount_namespaces) {
    reader.clear_fault();
    read_namespace(context, ns, [&](GuestVirt mount) {
      const bool enough = is_full(context.state.mounts, context.arena()) || shared.out_of_time();
      if (enough) return reader.set_fault(mount);
      read_mount(context, paths, ns, mount, view);
    });
    if (!reader.ok()) broken.push_back({ns.inode, *reader.fault()});
  }
  reader.clear_fault();
  return broken;
}

void MountsReader::read_namespace(Context& context, const MountNamespace& ns,
                                  const Visit& visit) const {
  if (at_.tree != absent) {
    each_in_tree(context.reader, ns.ns, visit);
  } else {
    each_in_list(context.reader, ns.ns, visit);
  }
}

void MountsReader::each_in_list(Reader& reader, GuestVirt ns, const Visit& visit) const {
  const GuestVirt head = ns + at_.list;
  GuestVirt from = head, node = reader.pointer(head);
  for (std::size_t i = 0; node != head && reader.ok(); ++i) {
    if (i == max_mounts || reader.pointer(node + 8) != from) return reader.set_fault(node);
    visit(node - at_.mount_list);
    from = node;
    node = reader.pointer(node);
  }
}

/// In order, with a stack of the nodes whose right side is still to come.
void MountsReader::each_in_tree(Reader& reader, GuestVirt ns, const Visit& visit) const {
  std::array<GuestVirt, max_tree_height> waiting;
  std::size_t height = 0, count = 0;
  GuestVirt node = reader.pointer(ns + at_.tree);
  while ((node.raw() != 0 || height > 0) && reader.ok()) {
    if (node.raw() != 0) {
      if (height == waiting.size() || ++count > max_mounts) return reader.set_fault(node);
      waiting[height++] = node;
      node = reader.pointer(node + at_.left);
      continue;
    }
    const GuestVirt next = waiting[--height];
    visit(next - at_.mount_node);
    node = reader.pointer(next + at_.right);
  }
}

void MountsReader::read_mount(Context& context, Paths& paths, const MountNamespace& ns,
                              GuestVirt mount, View& view) const {
  Reader& reader = context.reader;
  const GuestVirt vfsmount = mount + at_.mnt;
  const auto flags = reader.u32(vfsmount + at_.flags);
  if ((flags & mnt_cursor) != 0) return;  // a reader of /proc/mounts keeps its place so
  const GuestVirt root = reader.pointer(vfsmount + at_.root);
  const auto target = paths.path_below({vfsmount, root}, ns.root);
  if (!target) return;
  const GuestVirt super = reader.pointer(vfsmount + at_.super);
  const GuestVirt device_name = reader.pointer(mount + at_.devname);
  Mount record{
      .source = device_name.raw() != 0 ? text(context, device_name) : "none",
      .target = *target,
      .fstype = file_system(context, super),
      .options = options(context, vfsmount),
      .mntns = ns.inode,
      .id = reader.u32(mount + at_.id),
      .parent = reader.u32(reader.pointer(mount + at_.parent) + at_.id),
      .device = reader.u32(super + at_.device),
      .root = paths.path_in_filesystem(root),
      .super_options = {},
      .propagation = {},
  };
  record.super_options = super_options(context, super, record.fstype, view);
  read_propagation(context, paths, ns, mount, view, record);
  if (reader.ok()) context.state.mounts.push_back(record);
}

/// Null where they cannot be told, with one problem for each type of file system.
std::string_view MountsReader::super_options(Context& context, GuestVirt super,
                                             std::string_view type, View& view) const {
  if (const std::string_view* known = view.options.find(super)) return *known;
  if (!context.reader.ok()) return {};
  const auto found = fs_options_.read(context, super, type);
  if (!context.reader.ok()) {  // the mount is there all the same
    context.reader.clear_fault();
    context.state.problem("mounts", fmt::format("{}: its own options could not be read", type));
    view.options.insert(super, std::string_view());
    return {};
  }
  view.options.insert(super, found.value_or(std::string_view()));
  auto& told = view.untellable;
  if (!found && std::find(told.begin(), told.end(), type) == told.end()) {
    told.push_back(type);
    context.state.problem("mounts",
                          fmt::format("{}: where it keeps its own options is not known", type));
  }
  return found.value_or(std::string_view());
}

/// As findmnt calls it, and with the numbers of mountinfo.
void MountsReader::read_propagation(Context& context, Paths& paths, const MountNamespace& ns,
                                    GuestVirt mount, const View& view, Mount& into) const {
  Reader& reader = context.reader;
  const std::uint64_t flags =
      reader.value(flags_of_mount_ ? mount : mount + at_.mnt, propagation_flags_);
  const bool shared = (flags & shared_) != 0, unbindable = (flags & unbindable_) != 0;
  const GuestVirt master = reader.pointer(mount + master_);
  if (shared) into.peer_group = reader.u32(mount + group_);
  if (master != GuestVirt()) {
    into.master_group = reader.u32(master + group_);
    const std::uint32_t group = dominating_group(context, paths, ns, mount, view);
    if (group != into.master_group) into.propagate_from = group;
  }
  into.propagation = context.arena().copy(fmt::format("{}{}{}", shared ? "shared" : "private",
                                                      master != GuestVirt() ? ",slave" : "",
                                                      unbindable ? ",unbindable" : ""));
}

/// get_dominating_id() of fs/pnode.c: the group of the nearest master, up the chain, of which a
/// mount can be reached here. 0 if there is none.
std::uint32_t MountsReader::dominating_group(Context& context, Paths& paths,
                                             const MountNamespace& ns, GuestVirt mount,
                                             const View& view) const {
  Reader& reader = context.reader;
  std::size_t left = max_peers;
  for (GuestVirt master = reader.pointer(mount + master_); master != GuestVirt() && reader.ok();
       master = reader.pointer(master + master_)) {
    GuestVirt peer = master;
    do {
      if (left-- == 0) return 0;
      if (view.shared.out_of_time()) {
        reader.set_fault(peer);
        return 0;
      }
      const GuestVirt vfsmount = peer + at_.mnt, root = reader.pointer(vfsmount + at_.root);
      const bool here = reader.pointer(peer + namespace_) == ns.ns;
      if (here && paths.path_below({vfsmount, root}, ns.root)) return reader.u32(peer + group_);
      peer = reader.pointer(peer + share_) - share_;
    } while (peer != master && reader.ok());
  }
  return 0;
}

/// "ext4", "fuse.sshfs".
std::string_view MountsReader::file_system(Context& context, GuestVirt super) const {
  Reader& reader = context.reader;
  const auto name = text(context, reader.pointer(reader.pointer(super + at_.type) + at_.type_name));
  const GuestVirt subtype =
      at_.subtype != absent ? reader.pointer(super + at_.subtype) : GuestVirt(0);
  if (subtype.raw() == 0) return name;
  const auto sub = text(context, subtype);
  const auto whole = context.arena().allocate(name.size() + 1 + sub.size());
  fmt::format_to(whole.data(), "{}.{}", name, sub);
  return {whole.data(), whole.size()};
}

/// Those of the mount itself, the sixth field of mountinfo.
std::string_view MountsReader::options(Context& context, GuestVirt vfsmount) const {
  Reader& reader = context.reader;
  const auto flags = reader.u32(vfsmount + at_.flags);
  fmt::basic_memory_buffer<char, 128> text;
  const auto append = [&](std::string_view option) {
    text.append(option.data(), option.data() + option.size());
  };
  append((flags & mnt_readonly) != 0 ? "ro" : "rw");
  for (const auto& option : option_names) {
    if ((flags & option.flag) != 0) append(option.name);
  }
  if (at_.idmap != absent && no_idmap_.raw() != 0 &&
      reader.pointer(vfsmount + at_.idmap) != no_idmap_) {
    append(",idmapped");
  }
  return context.arena().copy({text.data(), text.size()});
}

std::string_view MountsReader::text(Context& context, GuestVirt from) const {
  const std::span<char> into = context.arena().allocate(max_text);
  return context.arena().shrink(into, context.reader.c_string(from, into).size());
}

}  // namespace vmsight
