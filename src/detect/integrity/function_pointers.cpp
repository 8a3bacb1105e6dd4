// function-pointers: tables of functions by which files of /proc, devices and sockets are read.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

constexpr std::size_t max_tables = 4096;

struct Kind {
  std::string_view type;
  std::array<std::string_view, 18> members;
};
/// Members that are functions, of those that some kernel has.
constexpr Kind kinds[] = {
    {"seq_operations", {"start", "stop", "next", "show"}},
    {"file_operations",
     {"llseek", "read", "write", "read_iter", "write_iter", "iterate", "iterate_shared", "poll",
      "unlocked_ioctl", "compat_ioctl", "mmap", "open", "flush", "release", "fsync", "splice_read",
      "splice_write", "mmap_prepare"}},
};

/// Tables of files that are the usual ones to hook; tables of struct seq_operations all have
/// names that say so.
constexpr std::string_view file_tables[] = {"proc_root_operations",
                                            "proc_tgid_base_operations",
                                            "proc_tid_base_operations",
                                            "proc_fd_operations",
                                            "proc_task_operations",
                                            "proc_dir_operations",
                                            "proc_reg_file_ops",
                                            "proc_iter_file_ops",
                                            "proc_pid_maps_operations",
                                            "proc_environ_operations",
                                            "proc_single_file_operations",
                                            "proc_pid_cmdline_ops",
                                            "proc_mem_operations",
                                            "ext4_file_operations",
                                            "ext4_dir_operations",
                                            "simple_dir_operations",
                                            "dcache_dir_operations",
                                            "shmem_file_operations",
                                            "ramfs_file_operations",
                                            "socket_file_ops",
                                            "pipefifo_fops",
                                            "tty_fops",
                                            "kernfs_file_fops",
                                            "kernfs_dir_fops",
                                            "null_fops",
                                            "zero_fops",
                                            "random_fops",
                                            "urandom_fops",
                                            "mem_fops",
                                            "kmsg_fops",
                                            "def_blk_fops",
                                            "def_chr_fops"};

const Kind* kind_of(std::string_view symbol) {
  if (symbol.starts_with("__")) return nullptr;  // __ksymtab_udp_seq_ops: of the exported symbol
  if (symbol.ends_with("_seq_ops") || symbol.ends_with("_seq_operations")) return &kinds[0];
  return std::ranges::find(file_tables, symbol) != std::end(file_tables) ? &kinds[1] : nullptr;
}

void check_function_table(Look& look, const Symbol& table, const Kind& kind) {
  for (const std::string_view path : kind.members) {
    if (path.empty()) break;
    const auto member = look.kernel.member(kind.type, path);
    if (!member) continue;
    const GuestVirt at = table.address + member->offset;
    const GuestVirt target = look.reader.pointer(at);
    if (!look.reader.ok()) break;
    if (target == GuestVirt() || look.places.is_code(target)) continue;
    const std::string object = fmt::format("{}.{}", table.name, path);
    look.find({.what = fmt::format("{} is {}, which is neither the kernel's text nor a listed "
                                   "module's",
                                   object, look.places.name(target)),
               .object = object,
               .sources = {std::string(table.name), "modules"},
               .sureness = Sureness::certain,
               .address = at});
  }
  if (!look.reader.ok()) look.note = "some tables are not readable";
  look.reader.clear_fault();
}

Result<void> check_function_pointers(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  for (const Symbol& symbol : look.places.symbols()) {
    if (!symbol.module.empty() || look.places.in_kernel_text(symbol.address)) continue;
    const Kind* kind = kind_of(symbol.name);
    if (kind == nullptr) continue;
    if (++look.looked_at > max_tables) break;
    check_function_table(look, symbol, *kind);
  }
  return look.looked_at != 0 ? Result<void>() : lacks("tables of functions with known names");
}

}  // namespace

extern const IntegrityCheck function_pointers_check{
    .info = {.name = "function-pointers",
             .what = "files of /proc, devices and sockets are read by the kernel or listed modules",
             .family = "kernel"},
    .run = check_function_pointers,
};

}  // namespace vmsight
