// Options of a file system, which are the last field of its line in /proc/PID/mountinfo.
//
// Each file system prints its own (super_operations.show_options), from a structure of its own
// that super_block.s_fs_info points to. Which one it is is told by that function where it is the
// kernel's own, and by the file system's name where it is a module's; the structure of a module
// by the module's types.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "state/context.h"
#include "state/jiffies.h"
#include "state/members.h"

namespace vmsight {

class FsOptions {
 public:
  static FsOptions resolve(Members& members);

  using Text = fmt::basic_memory_buffer<char, 256>;
  /// What a printer of options works on. Faults are the reader's.
  struct Super {
    Context& context;
    GuestVirt super, info;  // super_block, its s_fs_info
    Text& text;

    Reader& reader() { return context.reader; }
    void add(std::string_view option) { text.append(option.data(), option.data() + option.size()); }
    template <typename... Args>
    void print(fmt::format_string<Args...> format, Args&&... args) {
      fmt::format_to(std::back_inserter(text), format, std::forward<Args>(args)...);
    }
    /// ",name=value" with the value escaped as the kernel does it.
    void add_text(std::string_view name, GuestVirt value);
  };

  /// "rw,size=4096k"; nullopt if this file system's own options cannot be told.
  std::optional<std::string_view> read(Context& context, GuestVirt super,
                                       std::string_view type) const;

 private:
  /// False if what it shows cannot be told.
  using Printer = bool (FsOptions::*)(Super&) const;
  struct Known {
    std::string_view name;  // the symbol of its show_options, or the file system's name
    Printer print;
  };
  static const Known built_in[];
  static const Known by_name[];

  Printer find(GuestVirt show_options, std::string_view type) const;
  void read_flags(Super& super) const;
  /// Members of a structure: of the kernel's types or of a module's. nullopt if one is missing.
  static std::optional<std::vector<Member>> members_of(
      Kernel& kernel, std::string_view module, std::string_view type,
      std::initializer_list<std::string_view> names);

  /// Of the inode numbers of a tmpfs that nobody gave options, which devtmpfs is.
  bool is_wide_by_default(Reader& reader, const Member& full_inums) const;
  bool print_nothing(Super& super) const;
  bool print_tmpfs(Super& super) const;
  bool print_ramfs(Super& super) const;
  bool print_proc(Super& super) const;
  bool print_devpts(Super& super) const;
  bool print_debugfs(Super& super) const;
  bool print_tracefs(Super& super) const;
  bool print_bpf(Super& super) const;
  bool print_hugetlbfs(Super& super) const;
  bool print_cgroup(Super& super) const;
  bool print_cgroup2(Super& super) const;
  bool print_overlay(Super& super) const;
  bool print_autofs(Super& super) const;
  bool print_fuse(Super& super) const;
  bool print_pstore(Super& super) const;
  bool print_ext4(Super& super) const;
  bool print_overlay_choices(Super& super) const;
  /// The value of a flag that a module is loaded with; nullopt if it has no such parameter.
  bool has_untold_ext4_options(Super& super, std::uint32_t second_word) const;
  std::optional<bool> module_flag(Super& super, std::string_view module,
                                  std::string_view parameter) const;
  bool print_simple(Super& super, std::string_view type, unsigned usual_mode) const;

  Jiffies jiffies_;
  Offset flags_ = 0, operations_ = 0, info_ = 0, show_ = 0, root_ = 0, dentry_inode_ = 0;
  Offset pid_number_ = 0;  // of struct pid, in the first namespace
  GuestVirt modules_, devtmpfs_;
  Offset supers_ = 0, instances_ = 0;
  Offset module_list_ = 0, module_name_ = 0, parameters_ = 0, parameter_count_ = 0;
  Offset parameter_name_ = 0, parameter_value_ = 0, parameter_size_ = 0;
  Offset i_mode_ = 0, i_uid_ = 0, i_gid_ = 0, i_ino_ = 0, file_inode_ = 0;
  std::vector<std::pair<GuestVirt, Printer>> functions_;
};

}  // namespace vmsight
