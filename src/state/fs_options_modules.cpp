// Options of file systems that are modules: their structures stand in the module's own types.
#include <algorithm>
#include <array>

#include "state/fs_options.h"
#include "state/lists.h"

namespace vmsight {
namespace {

constexpr std::uint64_t no_limit_of_reads = 0xffffffff;
constexpr std::size_t max_layers = 512;  // OVL_MAX_STACK is 500
constexpr std::size_t max_modules_met = 4096;
constexpr std::uint32_t max_parameters = 256;

}  // namespace

/// autofs_show_options() of fs/autofs/inode.c.
bool FsOptions::print_autofs(Super& super) const {
  constexpr unsigned direct = 2, offset = 4, strict_expire = 2, ignore = 4;
  Reader& reader = super.reader();
  const auto at = members_of(
      super.context.kernel, "autofs4", "autofs_sb_info",
      {"pipefd", "oz_pgrp", "exp_timeout", "min_proto", "max_proto", "type", "flags", "pipe"});
  const auto ticks = jiffies_.per_second(reader);
  if (!at || !ticks || super.info == GuestVirt()) return false;
  const auto value = [&](std::size_t i) { return reader.value(super.info, (*at)[i]); };
  super.print(",fd={}", static_cast<std::int32_t>(value(0)));
  const GuestVirt inode = reader.pointer(reader.pointer(super.super + root_) + dentry_inode_);
  const std::uint32_t uid = reader.u32(inode + i_uid_), gid = reader.u32(inode + i_gid_);
  if (uid != 0) super.print(",uid={}", uid);
  if (gid != 0) super.print(",gid={}", gid);
  const GuestVirt group(value(1)), pipe(value(7));
  super.print(",pgrp={}", group == GuestVirt() ? 0 : reader.u32(group + pid_number_));
  super.print(",timeout={},minproto={},maxproto={}", value(2) / *ticks, value(3), value(4));
  super.add(value(5) == offset ? ",offset" : value(5) == direct ? ",direct" : ",indirect");
  if ((value(6) & strict_expire) != 0) super.add(",strictexpire");
  if ((value(6) & ignore) != 0) super.add(",ignore");
  if (pipe == GuestVirt()) {
    super.add(",pipe_ino=-1");
  } else {
    super.print(",pipe_ino={}", reader.u64(reader.pointer(pipe + file_inode_) + i_ino_));
  }
  return true;
}

/// fuse_show_options() of fs/fuse/inode.c.
bool FsOptions::print_fuse(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const auto mount = members_of(kernel, "fuse", "fuse_mount", {"fc"});
  const auto at = members_of(kernel, "fuse", "fuse_conn",
                             {"legacy_opts_show", "user_id", "group_id", "default_permissions",
                              "allow_other", "max_read"});
  const auto block = members_of(kernel, "", "super_block", {"s_bdev", "s_blocksize"});
  if (!mount || !at || !block) return false;
  const GuestVirt connection(reader.value(super.info, (*mount)[0]));
  const auto value = [&](std::size_t i) { return reader.value(connection, (*at)[i]); };
  if (value(0) == 0) return false;  // virtiofs, whose other options are not told here
  super.print(",user_id={},group_id={}", value(1), value(2));
  if (value(3) != 0) super.add(",default_permissions");
  if (value(4) != 0) super.add(",allow_other");
  if (value(5) != no_limit_of_reads) super.print(",max_read={}", value(5));
  const std::uint64_t size = reader.value(super.super, (*block)[1]);
  if (reader.value(super.super, (*block)[0]) != 0 && size != 512) super.print(",blksize={}", size);
  return true;
}

/// Newer kernels keep a list of lower directories: the first is what was given as one text, the
/// others were given one by one.
bool FsOptions::print_overlay(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const auto at = members_of(kernel, "overlay", "ovl_fs",
                             {"config.upperdir", "config.workdir", "config.default_permissions"});
  const auto text = members_of(kernel, "overlay", "ovl_fs", {"config.lowerdir"});
  const auto list =
      members_of(kernel, "overlay", "ovl_fs", {"config.lowerdirs", "numlayer", "numdatalayer"});
  if (!at || (!text && !list)) return false;
  if (text) {
    super.add_text("lowerdir", GuestVirt(reader.value(super.info, (*text)[0])));
  } else {
    const GuestVirt directories(reader.value(super.info, (*list)[0]));
    const GuestVirt first = reader.pointer(directories);
    if (first != GuestVirt()) super.add_text("lowerdir", first);
    const std::uint64_t layers = reader.value(super.info, (*list)[1]);
    const std::uint64_t merged = layers - reader.value(super.info, (*list)[2]);
    if (layers > max_layers) return false;
    for (std::uint64_t i = 1; first == GuestVirt() && i < layers; ++i) {
      super.add_text(i < merged ? "lowerdir+" : "datadir+", reader.pointer(directories + i * 8));
    }
  }
  const GuestVirt upper(reader.value(super.info, (*at)[0]));
  if (upper != GuestVirt()) {
    super.add_text("upperdir", upper);
    super.add_text("workdir", GuestVirt(reader.value(super.info, (*at)[1])));
  }
  if (reader.value(super.info, (*at)[2]) != 0) super.add(",default_permissions");
  return print_overlay_choices(super);
}

/// Shown where they are not what the module's parameters make the default. The mode of redirects
/// is a text in older kernels.
bool FsOptions::print_overlay_choices(Super& super) const {
  Kernel& kernel = super.context.kernel;
  Reader& reader = super.reader();
  const auto has = [&](std::string_view name) {
    const auto found = members_of(kernel, "overlay", "ovl_fs", {name});
    return found ? std::optional((*found)[0]) : std::nullopt;
  };
  bool known = true;
  const auto flag = [&](const char* name) {
    auto value = module_flag(super, "overlay", name);
    for (const char* form : {"ovl_{}_def", "ovl_{}"}) {  // of an overlay that is built in
      const auto variable =
          value ? std::nullopt : kernel.symbol(fmt::format(fmt::runtime(form), name));
      if (variable) value = reader.u8(*variable) != 0;
    }
    known = known && value;
    return value.value_or(false);
  };
  const auto choice = [&](std::string_view name, std::string_view member, std::uint64_t usual,
                          std::initializer_list<std::string_view> words) {
    const auto at = has(member);
    const std::uint64_t value = at ? reader.value(super.info, *at) : usual;
    if (value == usual) return true;
    if (value >= words.size()) return false;
    super.print(",{}={}", name, words.begin()[value]);
    return true;
  };
  const auto redirect = has("config.redirect_mode");
  if (!redirect) return false;
  if (redirect->size == 8) {
    std::array<char, 16> room;
    const std::string_view mode =
        reader.c_string(GuestVirt(reader.value(super.info, *redirect)), room);
    if (mode != (flag("redirect_dir") ? "on" : "off")) super.print(",redirect_dir={}", mode);
  } else {
    const unsigned usual = flag("redirect_dir") ? 3 : flag("redirect_always_follow") ? 1 : 2;
    if (!choice("redirect_dir", "config.redirect_mode", usual, {"off", "follow", "nofollow", "on"}))
      return false;
  }
  bool told = choice("index", "config.index", flag("index"), {"off", "on"});
  const auto uuid = has("config.uuid");
  const bool modes = uuid && uuid->size != 1;  // "auto" is the default, once there is one
  told = told && (modes ? choice("uuid", "config.uuid", 2, {"off", "null", "auto", "on"})
                        : choice("uuid", "config.uuid", 1, {"off"}));
  told = told && choice("nfs_export", "config.nfs_export", flag("nfs_export"), {"off", "on"});
  const auto same = has("xino_mode");
  if (same && reader.value(super.info, *same) != 0) {
    told = told && choice("xino", "config.xino", flag("xino_auto"), {"off", "auto", "on"});
  }
  told = told && choice("metacopy", "config.metacopy", flag("metacopy"), {"off", "on"});
  const auto fsync = has("config.fsync_mode");
  if (fsync && reader.value(super.info, *fsync) != 0) return false;
  for (const auto& [member, word] : {std::pair("config.ovl_volatile", ",volatile"),
                                     std::pair("config.userxattr", ",userxattr")}) {
    const auto at = has(member);
    if (at && reader.value(super.info, *at) != 0) super.add(word);
  }
  return told && known && choice("verity", "config.verity_mode", 0, {"off", "on", "require"});
}

std::optional<bool> FsOptions::module_flag(Super& super, std::string_view module,
                                           std::string_view parameter) const {
  // A kernel without modules has neither.
  for (const Offset offset : {module_list_, module_name_, parameters_, parameter_count_,
                              parameter_name_, parameter_value_}) {
    if (offset == absent) return std::nullopt;
  }
  if (modules_ == GuestVirt() || parameter_size_ == 0) return std::nullopt;
  Reader& reader = super.reader();
  std::optional<bool> found;
  std::size_t left = max_modules_met;
  walk_list(reader, modules_, [&](GuestVirt node) {
    if (left-- == 0) return reader.set_fault(node);
    const GuestVirt at = node - module_list_;
    std::array<char, 64> room;
    if (found || reader.c_string(at + module_name_, room) != module) return;
    const GuestVirt list = reader.pointer(at + parameters_);
    const std::uint32_t count = std::min(reader.u32(at + parameter_count_), max_parameters);
    for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
      const GuestVirt one = list + std::uint64_t{i} * parameter_size_;
      if (reader.c_string(reader.pointer(one + parameter_name_), room) != parameter) continue;
      found = reader.u8(reader.pointer(one + parameter_value_)) != 0;
    }
  });
  return found;
}

}  // namespace vmsight
