// Options of ext4: what differs from the defaults that the file system itself keeps.
#include "state/fs_options.h"

namespace vmsight {
namespace {

/// EXT4_MOUNT_* of fs/ext4/ext4.h, by the words for a bit that is set and one that is clear; ""
/// where one is not shown. In the order of _ext4_show_options() of fs/ext4/super.c.
struct Ext4Option {
  std::uint32_t bits;
  std::string_view set, clear;
};
constexpr Ext4Option ext4_options[] = {
    {0x80, "minixdf", "bsddf"},
    {0x4, "grpid", "nogrpid"},
    {0x20000000, "block_validity", "noblock_validity"},
    {0x400000, "dioread_nolock", "dioread_lock"},
    {0x40000000, "discard", "nodiscard"},
    {0x8000000, "delalloc", "nodelalloc"},
    {0x2000000, "warn_on_error", "nowarn_on_error"},
    {0x800000, "journal_checksum", "nojournal_checksum"},
    {0x1800000, "journal_async_commit", ""},
    {0x100, "norecovery", ""},
    {0x20000, "barrier", "nobarrier"},
    {0x10000, "noauto_da_alloc", "auto_da_alloc"},
    {0x80000000, "", "noinit_itable"},
    {0x4000, "user_xattr", "nouser_xattr"},
    {0x8000, "acl", "noacl"},
    {0x2000, "nouid32", ""},
    {0x8, "debug", ""},
    {0xc0000, "quota", ""},
    {0xc0000, "usrquota", ""},
    {0x140000, "grpquota", ""},
    {0x240000, "prjquota", ""},
    {0x3c0000, "", "noquota"},
    {0x1, "nombcache", ""},
    {0x4000000, "no_prefetch_block_bitmaps", ""},
};
constexpr std::uint32_t errors_continue = 0x10, errors_read_only = 0x20, errors_panic = 0x40,
                        data_modes = 0xc00, init_itable = 0x80000000,
                        data_error_aborts = 0x10000000, dax_always = 0x200, dax_never = 0x20,
                        dax_inode = 0x40, optimize_scan = 0x80;  // of the second word
constexpr std::uint64_t inline_encryption = 1u << 17;            // SB_INLINECRYPT
constexpr std::uint64_t groups_to_optimize = 16;                 // MB_DEFAULT_LINEAR_SCAN_THRESHOLD
constexpr std::uint64_t usual_commit_s = 5, usual_batch_us = 15000, usual_readahead = 32,
                        usual_wait = 10;

}  // namespace

bool FsOptions::print_ext4(Super& super) const {
  Reader& reader = super.reader();
  const auto at = members_of(
      super.context.kernel, "ext4", "ext4_sb_info",
      {"s_mount_opt", "s_def_mount_opt", "s_mount_opt2", "s_es", "s_sb_block", "s_resuid",
       "s_resgid", "s_commit_interval", "s_min_batch_time", "s_max_batch_time", "s_stripe",
       "s_inode_readahead_blks", "s_li_wait_mult", "s_max_dir_size_kb", "s_jquota_fmt"});
  const auto disk = members_of(super.context.kernel, "ext4", "ext4_super_block",
                               {"s_errors", "s_def_resuid", "s_def_resgid"});
  const auto ticks = jiffies_.per_second(reader);
  if (!at || !disk || !ticks) return false;
  const auto value = [&](std::size_t i) { return reader.value(super.info, (*at)[i]); };
  const auto set = static_cast<std::uint32_t>(value(0)),
             set2 = static_cast<std::uint32_t>(value(2));
  const auto changed = set ^ static_cast<std::uint32_t>(value(1));
  const GuestVirt stored(value(3));
  const auto kept = [&](std::size_t i) { return reader.value(stored, (*disk)[i]); };
  if (value(14) != 0 || (set & dax_always) != 0) return false;  // named quota files are not read
  if (has_untold_ext4_options(super, set2)) return false;
  if (value(4) != 1) super.print(",sb={}", value(4));
  for (const Ext4Option& option : ext4_options) {
    if ((option.bits & changed) == 0) continue;
    const std::string_view word = (set & option.bits) == option.bits ? option.set
                                  : (set & option.bits) == 0         ? option.clear
                                                                     : "";
    if (!word.empty()) super.print(",{}", word);
  }
  if (value(5) != 0 || kept(1) != 0) super.print(",resuid={}", value(5));
  if (value(6) != 0 || kept(2) != 0) super.print(",resgid={}", value(6));
  const std::uint64_t errors = kept(0);  // 1: go on, 2: read-only, 3: panic
  if ((set & errors_read_only) != 0 && errors != 2) super.add(",errors=remount-ro");
  if ((set & errors_continue) != 0 && errors != 1) super.add(",errors=continue");
  if ((set & errors_panic) != 0 && errors != 3) super.add(",errors=panic");
  if (value(7) != usual_commit_s * *ticks) super.print(",commit={}", value(7) / *ticks);
  if (value(8) != 0) super.print(",min_batch_time={}", value(8));
  if (value(9) != usual_batch_us) super.print(",max_batch_time={}", value(9));
  if (value(10) != 0) super.print(",stripe={}", value(10));
  if ((changed & data_modes) != 0) {
    constexpr std::string_view modes[] = {"", ",data=journal", ",data=ordered", ",data=writeback"};
    super.add(modes[(set & data_modes) >> 10]);
  }
  if (value(11) != usual_readahead) super.print(",inode_readahead_blks={}", value(11));
  if ((set & init_itable) != 0 && value(12) != usual_wait)
    super.print(",init_itable={}", value(12));
  if (value(13) != 0) super.print(",max_dir_size_kb={}", value(13));
  if ((set & data_error_aborts) != 0) super.add(",data_err=abort");
  if ((reader.u64(super.super + flags_) & inline_encryption) != 0) super.add(",inlinecrypt");
  if ((set2 & dax_never) != 0) super.add(",dax=never");
  if ((set2 & dax_inode) != 0) super.add(",dax=inode");
  return true;
}

/// How groups are scanned, where it is not what their number makes it (kernels differ on showing
/// it); and the policy of encryption that tests of the kernel use.
bool FsOptions::has_untold_ext4_options(Super& super, std::uint32_t second_word) const {
  Reader& reader = super.reader();
  Kernel& kernel = super.context.kernel;
  const auto scan =
      members_of(kernel, "ext4", "ext4_sb_info", {"s_groups_count", "s_mb_largest_free_orders"});
  if (scan) {
    const bool usual = reader.value(super.info, (*scan)[0]) >= groups_to_optimize;
    if (usual != ((second_word & optimize_scan) != 0)) return true;
  }
  const auto policy = members_of(kernel, "ext4", "ext4_sb_info", {"s_dummy_enc_policy.policy"});
  return policy && reader.value(super.info, (*policy)[0]) != 0;
}

}  // namespace vmsight
