// Names of files as /proc shows them: the kernel's d_path() seen from outside.
//
//   dentry -> d_parent -> ... until the root of its mount, there on to the mount point in the
//   parent mount, until the reader's root: that of the guest's process 1.
//
// A file of another mount namespace has no way to that root; d_path() then gives the path within
// its own namespace, and so do we. Files of pseudo file systems have no path but a name that
// their d_dname operation makes ("pipe:[4]"); which one is told by the operation's symbol.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "state/flat_map.h"
#include "state/members.h"
#include "state/proofs.h"
#include "vmsight/reader.h"
#include "vmsight/state.h"

namespace vmsight {

/// A struct path: where a file is.
struct PathRef {
  GuestVirt mnt;     // struct vfsmount
  GuestVirt dentry;  // struct dentry
  friend bool operator==(const PathRef&, const PathRef&) = default;
};

class Paths {
 public:
  static Result<Paths> resolve(Kernel& kernel);

  /// A new view. `root` is where absolute paths begin. All three must outlive the view.
  void begin(Reader& reader, Arena& arena, bool live);
  void set_root(PathRef root) { root_ = root; }
  /// What is remembered may be torn: the next questions are answered from memory again.
  void forget();

  PathRef read(GuestVirt path) const;  // at a struct path
  PathRef read_proven(Proofs& proofs, GuestVirt path) const;

  /// As readlink of a link in /proc shows it; null with a fault in the reader if unreadable.
  std::string_view path(PathRef path);
  /// The mount point or file below `root` only; nullopt if no way leads there.
  std::optional<std::string_view> path_below(PathRef path, PathRef root);
  /// Within the file system that the dentry belongs to.
  std::string_view path_in_filesystem(GuestVirt dentry);
  /// Is it named "anon_inode:..." by the kernel?
  bool is_anonymous(GuestVirt dentry);

  /// Names and parents of all directories seen: only a rename changes them.
  Proofs& names() { return names_; }

 private:
  /// How the kernel makes the name of a file that has no path.
  enum class Naming : std::uint8_t { by_path, simple, pipe, socket, anonymous, ns, pidfd };
  static constexpr std::size_t naming_count = 7;

  struct Offsets {
    Offset path_mnt, path_dentry;
    Offset d_parent, d_name, d_hash_pprev, d_inode, d_op, d_dname;
    Offset qstr_name, qstr_len;
    Offset mnt_root, mount_mnt, mount_parent, mount_mountpoint;
    Offset i_ino, i_private, ns_ops, ns_ops_name;
  };

  /// Writes a name backwards, as it is found: the last component first.
  class Text {
   public:
    bool prepend(std::string_view text);
    std::span<char> reserve(std::size_t size);  // in front; empty if there is no room
    std::string_view view() const { return {buffer_.data() + start_, buffer_.size() - start_}; }
    void clear() { start_ = buffer_.size(); }

   private:
    // Longer than any path that the kernel itself can print (PATH_MAX is 4096).
    std::vector<char> buffer_ = std::vector<char>(32768);
    std::size_t start_ = buffer_.size();
  };

  bool climb(PathRef at, PathRef root);
  void climb_remembering(PathRef at);
  bool leave_mount(PathRef& at);
  bool leave_directory(PathRef& at);
  bool prepend_name(GuestVirt dentry);
  bool is_unlinked(GuestVirt dentry) const;
  bool is_mounted(PathRef path) const;
  Naming naming(GuestVirt dentry);
  Naming naming_of(GuestVirt operations) const;
  std::string_view made_name(Naming naming, GuestVirt dentry);
  std::string_view keep() { return arena_->copy(text_.view()); }

  Offsets at_{};
  std::array<GuestVirt, naming_count> functions_{};  // d_dname functions, by Naming

  Reader* reader_ = nullptr;
  Arena* arena_ = nullptr;
  PathRef root_{};
  Proofs names_;
  Text text_;
  FlatMap<std::string_view> paths_;        // by mount and dentry: whole answers
  FlatMap<std::string_view> directories_;  // by mount and dentry: what goes before "/name"
  FlatMap<Naming> namings_;                // by dentry operations
};

}  // namespace vmsight
