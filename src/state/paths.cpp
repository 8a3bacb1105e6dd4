#include "state/paths.h"

namespace vmsight {

namespace {
// NAME_MAX is 255; names of pseudo files may carry a little more.
constexpr std::size_t max_name = 512;
// Directories and mounts above a file: more would not fit in any path.
constexpr unsigned max_depth = 8192;
}  // namespace

Result<Paths> Paths::resolve(Kernel& kernel) {
  Members members(kernel);
  Paths paths;
  paths.at_ = {
      .path_mnt = members.offset("path", "mnt"),
      .path_dentry = members.offset("path", "dentry"),
      .d_parent = members.offset("dentry", "d_parent"),
      .d_name = members.offset("dentry", {"d_name", "__d_name"}),
      .d_hash_pprev = members.offset("dentry", "d_hash.pprev"),
      .d_inode = members.offset("dentry", "d_inode"),
      .d_op = members.offset("dentry", "d_op"),
      .d_dname = members.offset("dentry_operations", "d_dname"),
      .qstr_name = members.offset("qstr", "name"),
      .qstr_len = members.offset("qstr", "len"),
      .mnt_root = members.offset("vfsmount", "mnt_root"),
      .mount_mnt = members.offset("mount", "mnt"),
      .mount_parent = members.offset("mount", "mnt_parent"),
      .mount_mountpoint = members.offset("mount", "mnt_mountpoint"),
      .i_ino = members.offset("inode", "i_ino"),
      .i_private = members.offset("inode", "i_private"),
      .ns_ops = members.offset("ns_common", "ops"),
      .ns_ops_name = members.offset("proc_ns_operations", "name"),
  };
  const auto function = [&](Naming naming, std::string_view symbol) {
    paths.functions_[static_cast<std::size_t>(naming)] = members.find_symbol(symbol);
  };
  function(Naming::simple, "simple_dname");
  function(Naming::pipe, "pipefs_dname");
  function(Naming::socket, "sockfs_dname");
  function(Naming::anonymous, "anon_inodefs_dname");
  function(Naming::ns, "ns_dname");
  function(Naming::pidfd, "pidfs_dname");
  VMSIGHT_TRY_VOID(members.check());
  return paths;
}

void Paths::begin(Reader& reader, Arena& arena, bool live) {
  reader_ = &reader;
  arena_ = &arena;
  root_ = {};
  names_.begin(live);
  forget();
}

void Paths::forget() {
  paths_.clear();
  directories_.clear();
  namings_.clear();
}

PathRef Paths::read(GuestVirt path) const {
  return {reader_->pointer(path + at_.path_mnt), reader_->pointer(path + at_.path_dentry)};
}

PathRef Paths::read_proven(Proofs& proofs, GuestVirt path) const {
  const PathRef ref = read(path);
  proofs.expect(*reader_, path + at_.path_mnt, ref.mnt);
  proofs.expect(*reader_, path + at_.path_dentry, ref.dentry);
  return ref;
}

std::string_view Paths::path(PathRef path) {
  if (const auto* known = paths_.find(path.mnt, path.dentry)) return *known;
  const Naming how = naming(path.dentry);
  // A namespace file that is mounted somewhere ("ip netns") does have a path.
  if (how != Naming::by_path && !is_mounted(path)) return made_name(how, path.dentry);
  text_.clear();
  if (is_unlinked(path.dentry)) text_.prepend(" (deleted)");
  const std::size_t suffix = text_.view().size();
  climb_remembering(path);
  if (!reader_->ok()) return {};
  if (text_.view().size() == suffix) text_.prepend("/");
  const std::string_view text = keep();
  paths_.insert(path.mnt, path.dentry, text);
  return text;
}

std::optional<std::string_view> Paths::path_below(PathRef path, PathRef root) {
  text_.clear();
  if (!climb(path, root) || !reader_->ok()) return std::nullopt;
  if (text_.view().empty()) text_.prepend("/");
  return keep();
}

std::string_view Paths::path_in_filesystem(GuestVirt dentry) {
  // A namespace that is mounted says its own name, "net:[4026532165]" (nsfs_show_path()).
  const GuestVirt operations = reader_->pointer(dentry + at_.d_op);
  if (operations != GuestVirt() && naming_of(operations) == Naming::ns) {
    return made_name(Naming::ns, dentry);
  }
  text_.clear();
  // As seq_dentry() marks it in mountinfo.
  if (is_unlinked(dentry)) text_.prepend("//deleted");
  const std::size_t suffix = text_.view().size();
  for (unsigned depth = 0;; ++depth) {
    const GuestVirt parent = reader_->pointer(dentry + at_.d_parent);
    if (parent == dentry || !reader_->ok()) break;
    if (depth == max_depth || !prepend_name(dentry)) {
      reader_->set_fault(dentry);
      break;
    }
    dentry = parent;
  }
  if (!reader_->ok()) return {};
  if (text_.view().size() == suffix) text_.prepend("/");
  return keep();
}

/// Prepends "/a/b/c" to text_, up to the root or as far as it goes. True if the root was met.
bool Paths::climb(PathRef at, PathRef root) {
  for (unsigned depth = 0; depth < max_depth && reader_->ok(); ++depth) {
    if (at == root) return true;
    if (at.dentry == reader_->pointer(at.mnt + at_.mnt_root)) {
      if (!leave_mount(at)) return false;
      continue;
    }
    if (!leave_directory(at)) return false;
  }
  reader_->set_fault(at.dentry);  // a cycle, unless something faulted before
  return false;
}

/// The same towards the reader's root, remembering the directory of the file.
void Paths::climb_remembering(PathRef at) {
  if (at == root_) return;
  if (at.dentry == reader_->pointer(at.mnt + at_.mnt_root) || !leave_directory(at)) {
    climb(at, root_);
    return;
  }
  const std::size_t own_name = text_.view().size();
  if (const auto* known = directories_.find(at.mnt, at.dentry)) {
    text_.prepend(*known);
    return;
  }
  climb(at, root_);
  if (!reader_->ok()) return;
  const std::string_view above = text_.view().substr(0, text_.view().size() - own_name);
  directories_.insert(at.mnt, at.dentry, arena_->copy(above));
}

/// From the root of a mount to where it is mounted; false if it is nowhere.
bool Paths::leave_mount(PathRef& at) {
  const GuestVirt mount = at.mnt - at_.mount_mnt;
  const GuestVirt above = reader_->pointer(mount + at_.mount_parent);
  if (above == mount) return false;
  at = {above + at_.mount_mnt, reader_->pointer(mount + at_.mount_mountpoint)};
  return true;
}

/// From a file to its directory, prepending its name; false if it has none.
bool Paths::leave_directory(PathRef& at) {
  const GuestVirt parent = reader_->pointer(at.dentry + at_.d_parent);
  if (parent == at.dentry) return false;
  names_.expect(*reader_, at.dentry + at_.d_parent, parent);
  if (!prepend_name(at.dentry)) return false;
  at.dentry = parent;
  return true;
}

/// Puts "/NAME" in front of text_.
bool Paths::prepend_name(GuestVirt dentry) {
  const GuestVirt name = dentry + at_.d_name;
  const auto length = reader_->u32(name + at_.qstr_len);
  const GuestVirt from = reader_->pointer(name + at_.qstr_name);
  names_.expect(*reader_, name + at_.qstr_len, length);
  names_.expect(*reader_, name + at_.qstr_name, from);
  const std::span<char> into = length <= max_name ? text_.reserve(length + 1) : std::span<char>{};
  if (into.empty()) {
    reader_->set_fault(name);
    return false;
  }
  into[0] = '/';
  return reader_->copy(from, std::as_writable_bytes(into.subspan(1))) == length;
}

/// Removed from its directory but still open.
bool Paths::is_unlinked(GuestVirt dentry) const {
  return reader_->u64(dentry + at_.d_hash_pprev) == 0 &&
         reader_->pointer(dentry + at_.d_parent) != dentry;
}

/// Is it the root of its mount, and of nothing larger?
bool Paths::is_mounted(PathRef path) const {
  return reader_->pointer(path.dentry + at_.d_parent) == path.dentry &&
         reader_->pointer(path.mnt + at_.mnt_root) == path.dentry;
}

bool Paths::is_anonymous(GuestVirt dentry) {
  const Naming how = naming(dentry);
  return how == Naming::anonymous || how == Naming::pidfd;
}

Paths::Naming Paths::naming(GuestVirt dentry) {
  const GuestVirt operations = reader_->pointer(dentry + at_.d_op);
  if (operations.raw() == 0) return Naming::by_path;
  if (const Naming* known = namings_.find(operations)) return *known;
  const Naming how = naming_of(operations);
  if (reader_->ok()) namings_.insert(operations, how);
  return how;
}

Paths::Naming Paths::naming_of(GuestVirt operations) const {
  const GuestVirt function = reader_->pointer(operations + at_.d_dname);
  if (function.raw() == 0) return Naming::by_path;
  for (std::size_t i = 1; i < naming_count; ++i) {
    if (functions_[i] == function) return static_cast<Naming>(i);
  }
  return Naming::simple;  // what most pseudo file systems do
}

std::string_view Paths::made_name(Naming how, GuestVirt dentry) {
  const GuestVirt inode = reader_->pointer(dentry + at_.d_inode);
  char buffer[64];
  const auto numbered = [&](std::string_view kind) {
    const auto* end =
        fmt::format_to_n(buffer, sizeof buffer, "{}:[{}]", kind, reader_->u64(inode + at_.i_ino))
            .out;
    return reader_->ok() ? arena_->copy({buffer, static_cast<std::size_t>(end - buffer)})
                         : std::string_view{};
  };
  switch (how) {
    case Naming::pipe:
      return numbered("pipe");
    case Naming::socket:
      return numbered("socket");
    case Naming::pidfd:
      return "anon_inode:[pidfd]";
    case Naming::ns: {
      char kind[32];
      const GuestVirt ns = reader_->pointer(inode + at_.i_private);
      const GuestVirt operations = reader_->pointer(ns + at_.ns_ops);
      return numbered(reader_->c_string(reader_->pointer(operations + at_.ns_ops_name), kind));
    }
    default:
      break;
  }
  text_.clear();
  if (how == Naming::simple) text_.prepend(" (deleted)");
  if (!prepend_name(dentry)) return {};
  if (how == Naming::simple) return keep();
  // "/[eventfd]" -> "anon_inode:[eventfd]"
  const std::string_view name = text_.view().substr(1);
  const std::span<char> whole = arena_->allocate(11 + name.size());
  std::memcpy(whole.data(), "anon_inode:", 11);
  std::memcpy(whole.data() + 11, name.data(), name.size());
  return {whole.data(), whole.size()};
}

bool Paths::Text::prepend(std::string_view text) {
  const std::span<char> into = reserve(text.size());
  if (into.size() != text.size()) return false;
  std::memcpy(into.data(), text.data(), text.size());
  return true;
}

std::span<char> Paths::Text::reserve(std::size_t size) {
  if (size > start_) return {};
  start_ -= size;
  return std::span(buffer_).subspan(start_, size);
}

}  // namespace vmsight
