#include "state/fs_options.h"

#include <algorithm>
#include <array>

namespace vmsight {
namespace {

constexpr std::size_t max_option = 4096;
// SB_* of include/linux/fs.h, in the order of show_sb_opts() of fs/proc_namespace.c.
constexpr std::uint64_t super_read_only = 1;
constexpr struct {
  std::uint64_t flag;
  std::string_view name;
} super_flags[] = {
    {1u << 4, ",sync"}, {1u << 7, ",dirsync"}, {1u << 6, ",mand"}, {1u << 25, ",lazytime"}};
constexpr std::uint32_t pty_max = 1u << 20;  // NR_UNIX98_PTY_MAX
constexpr std::uint64_t page_kib = page_size / 1024;

}  // namespace

const FsOptions::Known FsOptions::built_in[] = {
    {"shmem_show_options", &FsOptions::print_tmpfs},
    {"ramfs_show_options", &FsOptions::print_ramfs},
    {"proc_show_options", &FsOptions::print_proc},
    {"devpts_show_options", &FsOptions::print_devpts},
    {"debugfs_show_options", &FsOptions::print_debugfs},
    {"tracefs_show_options", &FsOptions::print_tracefs},
    {"bpf_show_options", &FsOptions::print_bpf},
    {"hugetlbfs_show_options", &FsOptions::print_hugetlbfs},
    {"pstore_show_options", &FsOptions::print_pstore},
};
const FsOptions::Known FsOptions::by_name[] = {
    {"sysfs", &FsOptions::print_nothing}, {"cgroup2", &FsOptions::print_cgroup2},
    {"cgroup", &FsOptions::print_cgroup}, {"overlay", &FsOptions::print_overlay},
    {"autofs", &FsOptions::print_autofs}, {"fuse", &FsOptions::print_fuse},
    {"fuseblk", &FsOptions::print_fuse},  {"ext4", &FsOptions::print_ext4},
};

FsOptions FsOptions::resolve(Members& members) {
  FsOptions self;
  self.jiffies_ = Jiffies::resolve(members);
  self.flags_ = members.offset("super_block", "s_flags");
  self.operations_ = members.offset("super_block", "s_op");
  self.info_ = members.offset("super_block", "s_fs_info");
  self.devtmpfs_ = members.find_symbol("internal_fs_type");  // of drivers/base/devtmpfs.c
  self.supers_ = members.offset("file_system_type", "fs_supers");
  self.instances_ = members.offset("super_block", "s_instances");
  self.root_ = members.offset("super_block", "s_root");
  self.show_ = members.offset("super_operations", "show_options");
  self.dentry_inode_ = members.offset("dentry", "d_inode");
  self.pid_number_ = members.offset("pid", "numbers") + members.offset("upid", "nr");
  self.modules_ = members.find_symbol("modules");
  self.module_list_ = members.find("module", "list");
  self.module_name_ = members.find("module", "name");
  self.parameters_ = members.find("module", "kp");
  self.parameter_count_ = members.find("module", "num_kp");
  self.parameter_name_ = members.find("kernel_param", "name");
  self.parameter_value_ = members.find("kernel_param", "arg");
  self.parameter_size_ =
      static_cast<Offset>(members.kernel().type_size("kernel_param").value_or(0));
  self.i_mode_ = members.offset("inode", "i_mode");
  self.i_uid_ = members.offset("inode", "i_uid");
  self.i_gid_ = members.offset("inode", "i_gid");
  self.i_ino_ = members.offset("inode", "i_ino");
  self.file_inode_ = members.offset("file", "f_inode");
  for (const Known& known : built_in) {
    const GuestVirt function = members.find_symbol(known.name);
    if (function != GuestVirt()) self.functions_.emplace_back(function, known.print);
  }
  return self;
}

std::optional<std::string_view> FsOptions::read(Context& context, GuestVirt super,
                                                std::string_view type) const {
  Reader& reader = context.reader;
  Text text;
  Super on{context, super, reader.pointer(super + info_), text};
  read_flags(on);
  const GuestVirt show = reader.pointer(reader.pointer(super + operations_) + show_);
  if (show != GuestVirt()) {
    const Printer print = find(show, type);
    if (print == nullptr || !(this->*print)(on)) return std::nullopt;
  }
  return context.arena().copy({text.data(), text.size()});
}

FsOptions::Printer FsOptions::find(GuestVirt show, std::string_view type) const {
  for (const auto& [function, print] : functions_) {
    if (function == show) return print;
  }
  // "fuse.sshfs" is a fuse.
  const std::string_view name = type.substr(0, type.find('.'));
  for (const Known& known : by_name) {
    if (known.name == name) return known.print;
  }
  return nullptr;
}

void FsOptions::read_flags(Super& super) const {
  const std::uint64_t flags = super.reader().u64(super.super + flags_);
  super.add((flags & super_read_only) != 0 ? "ro" : "rw");
  for (const auto& one : super_flags) {
    if ((flags & one.flag) != 0) super.add(one.name);
  }
}

std::optional<std::vector<Member>> FsOptions::members_of(
    Kernel& kernel, std::string_view module, std::string_view type,
    std::initializer_list<std::string_view> names) {
  for (const std::string& whole : {fmt::format("{}:{}", module, type), std::string(type)}) {
    if (module.empty() && whole != type) continue;
    std::vector<Member> found;
    for (std::string_view name : names) {
      const auto member = kernel.member(whole, name);
      if (!member) break;
      found.push_back(*member);
    }
    if (found.size() == names.size()) return found;
  }
  return std::nullopt;
}

/// seq_show_option() of the kernel: what would end the option is written in octal.
void FsOptions::Super::add_text(std::string_view name, GuestVirt value) {
  std::array<char, max_option> room;
  print(",{}=", name);
  for (const char c : reader().c_string(value, room)) {
    if (std::string_view(", \t\n\\").find(c) != std::string_view::npos) {
      print("\\{:03o}", static_cast<unsigned char>(c));
    } else {
      text.push_back(c);
    }
  }
}

bool FsOptions::print_nothing(Super&) const { return true; }

bool FsOptions::is_wide_by_default(Reader& reader, const Member& full_inums) const {
  if (devtmpfs_ == GuestVirt()) return false;
  const GuestVirt node = reader.pointer(devtmpfs_ + supers_);
  if (node == GuestVirt()) return false;
  return reader.value(reader.pointer(node - instances_ + info_), full_inums) != 0;
}

bool FsOptions::print_tmpfs(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const auto at = members_of(kernel, "", "shmem_sb_info",
                             {"max_blocks", "max_inodes", "mode", "uid", "gid", "full_inums"});
  const auto total = kernel.symbol("_totalram_pages");
  if (!at || !total) return false;
  const auto value = [&](std::size_t i) { return reader.value(super.info, (*at)[i]); };
  const std::uint64_t usual = reader.u64(*total) / 2;  // as many pages, and as many inodes
  if (value(0) != usual) super.print(",size={}k", value(0) * page_kib);
  if (value(1) != usual) super.print(",nr_inodes={}", value(1));
  if (value(2) != 01777) super.print(",mode={:03o}", value(2));
  if (value(3) != 0) super.print(",uid={}", value(3));
  if (value(4) != 0) super.print(",gid={}", value(4));
  const bool wide = value(5) != 0;
  // "inode32" is told by kernels with CONFIG_TMPFS_INODE64, whose own tmpfs has wide numbers.
  if (wide || is_wide_by_default(reader, (*at)[5])) super.print(",inode{}", wide ? 64 : 32);
  const auto huge = kernel.member("shmem_sb_info", "huge");
  const std::uint64_t pages = huge ? reader.value(super.info, *huge) : 0;
  constexpr std::string_view sizes[] = {"never", "always", "within_size", "advise"};
  if (pages >= std::size(sizes)) return false;
  if (pages != 0) super.print(",huge={}", sizes[pages]);
  const auto policy = kernel.member("shmem_sb_info", "mpol");
  if (policy && reader.value(super.info, *policy) != 0) return false;
  // Quotas, and names whose case does not matter.
  for (const char* untold : {"s_dquot.flags", "s_encoding"}) {
    const auto member = kernel.member("super_block", untold);
    if (member && reader.value(super.super, *member) != 0) return false;
  }
  const auto noswap = kernel.member("shmem_sb_info", "noswap");
  if (noswap && reader.value(super.info, *noswap) != 0) super.add(",noswap");
  return true;
}

bool FsOptions::print_ramfs(Super& super) const {
  const auto at = members_of(super.context.kernel, "", "ramfs_fs_info", {"mount_opts.mode"});
  if (!at) return false;
  const std::uint64_t mode = super.reader().value(super.info, (*at)[0]);
  if (mode != 0755) super.print(",mode={:o}", mode);
  return true;
}

bool FsOptions::print_proc(Super& super) const {
  const auto at =
      members_of(super.context.kernel, "", "proc_fs_info", {"pid_gid", "hide_pid", "pidonly"});
  if (!at) return false;
  const auto value = [&](std::size_t i) { return super.reader().value(super.info, (*at)[i]); };
  if (value(0) != 0) super.print(",gid={}", value(0));
  constexpr std::string_view hidden[] = {"", "noaccess", "invisible", "", "ptraceable"};
  if (value(1) >= std::size(hidden)) return false;
  if (value(1) != 0) super.print(",hidepid={}", hidden[value(1)]);
  if (value(2) != 0) super.add(",subset=pid");
  return true;
}

bool FsOptions::print_devpts(Super& super) const {
  const auto at =
      members_of(super.context.kernel, "", "pts_fs_info",
                 {"mount_opts.setuid", "mount_opts.uid", "mount_opts.setgid", "mount_opts.gid",
                  "mount_opts.mode", "mount_opts.ptmxmode", "mount_opts.max"});
  if (!at) return false;
  const auto value = [&](std::size_t i) { return super.reader().value(super.info, (*at)[i]); };
  if (value(0) != 0) super.print(",uid={}", value(1));
  if (value(2) != 0) super.print(",gid={}", value(3));
  super.print(",mode={:03o},ptmxmode={:03o}", value(4), value(5));
  if (value(6) < pty_max) super.print(",max={}", value(6));
  return true;
}

bool FsOptions::print_debugfs(Super& super) const {
  return print_simple(super, "debugfs_fs_info", 0700);
}

bool FsOptions::print_tracefs(Super& super) const {
  return print_simple(super, "tracefs_fs_info", 0700);
}

/// Those with an owner and a mode only. Older kernels keep them in a structure within.
bool FsOptions::print_simple(Super& super, std::string_view type, unsigned usual_mode) const {
  Kernel& kernel = super.context.kernel;
  auto at = members_of(kernel, "", type, {"mount_opts.uid", "mount_opts.gid", "mount_opts.mode"});
  if (!at) at = members_of(kernel, "", type, {"uid", "gid", "mode"});
  if (!at) return false;
  const auto value = [&](std::size_t i) { return super.reader().value(super.info, (*at)[i]); };
  if (value(0) != 0) super.print(",uid={}", value(0));
  if (value(1) != 0) super.print(",gid={}", value(1));
  if (value(2) != usual_mode) super.print(",mode={:o}", value(2));
  return true;
}

bool FsOptions::print_bpf(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const GuestVirt inode = reader.pointer(reader.pointer(super.super + root_) + dentry_inode_);
  if (kernel.member("bpf_mount_opts", "uid")) {  // kernels that show its owner
    const std::uint32_t uid = reader.u32(inode + i_uid_), gid = reader.u32(inode + i_gid_);
    if (uid != 0) super.print(",uid={}", uid);
    if (gid != 0) super.print(",gid={}", gid);
  }
  const unsigned mode = reader.u16(inode + i_mode_) & 06777;
  if (mode != 0777) super.print(",mode={:o}", mode);
  const auto at =
      members_of(kernel, "", "bpf_mount_opts",
                 {"delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs"});
  if (!at) return true;
  return std::all_of(at->begin(), at->end(),
                     [&](const Member& member) { return reader.value(super.info, member) == 0; });
}

bool FsOptions::print_hugetlbfs(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const auto at = members_of(kernel, "", "hugetlbfs_sb_info",
                             {"uid", "gid", "mode", "max_inodes", "hstate", "spool"});
  const auto order = members_of(kernel, "", "hstate", {"order"});
  const auto pool = members_of(kernel, "", "hugepage_subpool", {"max_hpages", "min_hpages"});
  if (!at || !order || !pool) return false;
  const auto value = [&](std::size_t i) { return reader.value(super.info, (*at)[i]); };
  if (value(0) != 0) super.print(",uid={}", value(0));
  if (value(1) != 0) super.print(",gid={}", value(1));
  if (value(2) != 0755) super.print(",mode={:o}", value(2));
  if (value(3) != ~0ULL) super.print(",nr_inodes={}", value(3));
  const unsigned shift =
      std::min<unsigned>(static_cast<unsigned>(reader.value(GuestVirt(value(4)), (*order)[0])),
                         40) +
      page_shift;
  const std::uint64_t kib = 1ULL << (shift - 10);
  super.print(",pagesize={}{}", kib >= 1024 ? kib / 1024 : kib, kib >= 1024 ? 'M' : 'K');
  const GuestVirt spool(value(5));
  if (spool == GuestVirt()) return true;
  const std::uint64_t most = reader.value(spool, (*pool)[0]),
                      least = reader.value(spool, (*pool)[1]);
  if (most != ~0ULL) super.print(",size={}", most << shift);
  if (least != ~0ULL) super.print(",min_size={}", least << shift);
  return true;
}

/// A hierarchy of v1, as cgroup1_show_options() of kernel/cgroup/cgroup1.c prints it.
bool FsOptions::print_cgroup(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const auto roots = members_of(kernel, "", "kernfs_super_info", {"root"});
  const auto nodes = members_of(kernel, "", "kernfs_root", {"kn"});
  const auto owners = members_of(kernel, "", "kernfs_node", {"priv"});
  const auto of = members_of(kernel, "", "cgroup", {"root", "flags"});
  const auto in = members_of(kernel, "", "cgroup_root",
                             {"subsys_mask", "flags", "release_agent_path", "name", "cgrp"});
  const auto legacy_name = kernel.member("cgroup_subsys", "legacy_name");
  const auto subsystems = kernel.symbol("cgroup_subsys");
  const auto count = kernel.enumerator("CGROUP_SUBSYS_COUNT");
  const auto clone_children = kernel.enumerator("CGRP_CPUSET_CLONE_CHILDREN");
  if (!roots || !nodes || !owners || !of || !in || !legacy_name || !subsystems || !count)
    return false;
  const GuestVirt node =
      reader.pointer(reader.pointer(super.info + (*roots)[0].offset) + (*nodes)[0].offset);
  const GuestVirt group = reader.pointer(node + (*owners)[0].offset);
  const GuestVirt root = reader.pointer(group + (*of)[0].offset);
  const std::uint64_t mask = reader.value(root, (*in)[0]), flags = reader.value(root, (*in)[1]);
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(static_cast<std::uint64_t>(*count), 32);
       ++i) {
    std::array<char, 64> name;
    if ((mask >> i & 1) == 0) continue;
    const GuestVirt subsystem = reader.pointer(*subsystems + 8 * i);
    super.print(",{}", reader.c_string(reader.pointer(subsystem + legacy_name->offset), name));
  }
  constexpr std::pair<const char*, std::string_view> names[] = {
      {"CGRP_ROOT_NOPREFIX", ",noprefix"},
      {"CGRP_ROOT_XATTR", ",xattr"},
      {"CGRP_ROOT_CPUSET_V2_MODE", ",cpuset_v2_mode"},
      {"CGRP_ROOT_FAVOR_DYNMODS", ",favordynmods"}};
  for (const auto& [enumerator, option] : names) {
    const auto flag = kernel.enumerator(enumerator);
    if (flag && (flags & static_cast<std::uint64_t>(*flag)) != 0) super.add(option);
  }
  const GuestVirt agent = root + (*in)[2].offset, name = root + (*in)[3].offset;
  if (reader.u8(agent) != 0) super.add_text("release_agent", agent);
  const std::uint64_t own_flags = reader.value(root + (*in)[4].offset, (*of)[1]);
  const bool is_bit = clone_children && *clone_children >= 0 && *clone_children < 64;
  if (is_bit && (own_flags >> *clone_children & 1) != 0) super.add(",clone_children");
  if (reader.u8(name) != 0) super.add_text("name", name);
  return true;
}

/// Flags of the one hierarchy, in the order of cgroup_show_options().
bool FsOptions::print_cgroup2(Super& super) const {
  Kernel& kernel = super.context.kernel;
  const auto root = kernel.symbol("cgrp_dfl_root");
  const auto flags = kernel.member("cgroup_root", "flags");
  if (!root || !flags) return false;
  constexpr std::pair<const char*, std::string_view> names[] = {
      {"CGRP_ROOT_NS_DELEGATE", ",nsdelegate"},
      {"CGRP_ROOT_FAVOR_DYNMODS", ",favordynmods"},
      {"CGRP_ROOT_MEMORY_LOCAL_EVENTS", ",memory_localevents"},
      {"CGRP_ROOT_MEMORY_RECURSIVE_PROT", ",memory_recursiveprot"},
      {"CGRP_ROOT_MEMORY_HUGETLB_ACCOUNTING", ",memory_hugetlb_accounting"},
      {"CGRP_ROOT_PIDS_LOCAL_EVENTS", ",pids_localevents"}};
  const std::uint64_t set = super.reader().value(*root, *flags);
  for (const auto& [enumerator, option] : names) {
    const auto flag = kernel.enumerator(enumerator);
    if (flag && (set & static_cast<std::uint64_t>(*flag)) != 0) super.add(option);
  }
  return true;
}

bool FsOptions::print_pstore(Super& super) const {
  constexpr std::uint64_t usual_bytes = 10240;  // CONFIG_PSTORE_DEFAULT_KMSG_BYTES
  const auto bytes = super.context.kernel.symbol("kmsg_bytes");
  if (!bytes) return false;
  const std::uint32_t value = super.reader().u32(*bytes);
  if (value != usual_bytes) super.print(",kmsg_bytes={}", value);
  return true;
}

}  // namespace vmsight
