#include "state/mounts.h"

#include <fmt/format.h>

#include <array>

namespace vmsight {

namespace {

constexpr std::size_t max_mounts = 1u << 20;  // sysctl fs.mount-max is 100,000 by default
constexpr std::size_t max_tree_height = 64;   // of a balanced tree with 2^32 nodes
constexpr std::size_t max_text = 4096;

// include/linux/mount.h
constexpr std::uint32_t mnt_readonly = 0x40, mnt_cursor = 0x10000000;
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
  mounts.no_idmap_ = members.find_symbol(kernel.member("vfsmount", "mnt_idmap") ? "nop_mnt_idmap"
                                                                                : "init_user_ns");
  VMSIGHT_TRY_VOID(members.check());
  return mounts;
}

std::vector<MountsReader::Broken> MountsReader::read(Context& context, Paths& paths,
                                                     const Shared& shared) const {
  Reader& reader = context.reader;
  std::vector<Broken> broken;
  for (const MountNamespace& ns : shared.mount_namespaces) {
    reader.clear_fault();
    read_namespace(context, ns, [&](GuestVirt mount) {
      const bool enough = is_full(context.state.mounts, context.arena()) || shared.out_of_time();
      if (enough) return reader.set_fault(mount);
      read_mount(context, paths, ns, mount);
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
                              GuestVirt mount) const {
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
  };
  if (reader.ok()) context.state.mounts.push_back(record);
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
