#include "host/process_paths.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <cerrno>
#include <optional>
#include <string_view>

#include "host/option_list.h"
#include "host/process.h"

namespace vmsight {
namespace {

/// "/proc/123/root/run/qmp" in its two parts.
struct SplitPath {
  std::string root, inside;
};

std::optional<SplitPath> split(const std::string& path) {
  constexpr std::string_view proc = "/proc/", root = "/root/";
  if (!path.starts_with(proc)) return std::nullopt;
  const auto slash = path.find('/', proc.size());
  if (slash == std::string::npos || path.compare(slash, root.size(), root) != 0)
    return std::nullopt;
  const auto pid = parse_number(std::string_view(path).substr(proc.size(), slash - proc.size()));
  if (!pid) return std::nullopt;
  const auto inside = slash + root.size() - 1;  // with its slash
  return SplitPath{path.substr(0, inside), path.substr(inside)};
}

bool same_object(const std::string& a, const std::string& b) {
  struct stat first {
  }, second{};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/// The same mounts in the same places, if we may know.
bool shares_our_mounts(const std::string& process) {
  return same_object(process + "/ns/mnt", "/proc/self/ns/mnt");
}

/// A path that begins at the process's root, not at its working directory.
std::string absolute(pid_t pid, const std::string& path) {
  if (path.starts_with('/')) return path;
  auto directory = read_proc_link(pid, "cwd");
  if (!directory) return path;
  // After a chroot() the kernel tells both from our root.
  const auto root = read_proc_link(pid, "root");
  if (root && *root != "/" && directory->starts_with(*root + "/"))
    directory->erase(0, root->size());
  return *directory + "/" + path;
}

}  // namespace

std::string path_of_process(pid_t pid, const std::string& path) {
  const std::string process = fmt::format("/proc/{}", pid);
  const bool our_mounts = shares_our_mounts(process);
  const bool unknown = !read_proc_link(pid, "root");  // another user's process
  std::string full = absolute(pid, path);
  if (unknown || (our_mounts && same_object(process + "/root", "/"))) return full;
  std::string inside = process + "/root" + full;
  // With -chroot QEMU opens its sockets first: they lie where it was before, which is with us.
  if (our_mounts && !open_process_path(inside)) return full;
  return inside;
}

std::string path_inside(const std::string& path) {
  const auto parts = split(path);
  return parts ? parts->inside : path;
}

Result<UniqueFd> open_process_path(const std::string& path) {
  const auto parts = split(path);
  if (!parts) {
    UniqueFd opened(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!opened) return os_error(errno, "open " + path);
    return opened;
  }
  const UniqueFd root(::open(parts->root.c_str(), O_PATH | O_CLOEXEC));
  if (!root) return os_error(errno, "open " + path);
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  UniqueFd opened(static_cast<int>(
      ::syscall(SYS_openat2, root.get(), parts->inside.c_str(), &how, sizeof how)));
  if (!opened) return os_error(errno, "open " + path);
  return opened;
}

}  // namespace vmsight
