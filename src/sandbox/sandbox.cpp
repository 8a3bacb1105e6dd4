#include "sandbox/sandbox.h"

#include <cap-ng.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/os.h"
#include "base/text.h"
#include "sandbox/call_filter.h"
#include "sandbox/landlock.h"

namespace vmsight {
namespace {

bool entered = false;
std::vector<int> inherited;

struct User {
  const char* name;
  uid_t uid;
  gid_t gid;
};

/// From the file itself: other sources of users may be far away.
std::optional<User> user_without_rights() {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/etc/passwd", "re"), &std::fclose);
  std::optional<User> nobody;
  while (const passwd* entry = file ? ::fgetpwent(file.get()) : nullptr) {
    const std::string_view name = entry->pw_name;
    if (entry->pw_uid == 0 || entry->pw_gid == 0) continue;
    if (name == "vmsight") return User{"vmsight", entry->pw_uid, entry->pw_gid};
    if (name == "nobody") nobody = User{"nobody", entry->pw_uid, entry->pw_gid};
  }
  return nobody;
}

/// Of the capabilities that libcap-ng has read, in its own store.
void keep_only_ptrace(bool wanted) {
  const bool keeps = wanted && ::capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_PTRACE) == 1;
  ::capng_clear(CAPNG_SELECT_CAPS);
  constexpr auto sets = static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED);
  if (keeps) ::capng_update(CAPNG_ADD, sets, CAP_SYS_PTRACE);
}

/// Whether a user namespace has the number: "inside outside count" a line.
bool is_mapped(const char* map, std::uint64_t number) {
  std::ifstream file(map);
  std::uint64_t inside = 0, outside = 0, count = 0;
  bool read_any = false;
  while (file >> inside >> outside >> count) {
    read_any = true;
    if (number >= inside && number - inside < count) return true;
  }
  return !read_any;  // a kernel without user namespaces
}

bool has_room_for(const User& user) {
  std::string groups;
  std::ifstream("/proc/self/setgroups") >> groups;
  return groups != "deny" && is_mapped("/proc/self/uid_map", user.uid) &&
         is_mapped("/proc/self/gid_map", user.gid);
}

bool may_change_user() {
  return ::geteuid() == 0 && ::capng_have_capability(CAPNG_EFFECTIVE, CAP_SETUID) == 1 &&
         ::capng_have_capability(CAPNG_EFFECTIVE, CAP_SETGID) == 1;
}

/// Where nothing is but what /proc tells of the descriptors of this process.
Result<void> enter_empty_root() {
  if (::capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_CHROOT) != 1) return {};
  if (::chroot("/proc/self/fdinfo") != 0 || ::chdir("/") != 0)
    return os_error(errno, "enter an empty root");
  return {};
}

Result<void> drop_user_and_capabilities(bool keeps_ptrace) {
  if (::capng_get_caps_process() != 0)
    return os_error(errno, "read the capabilities of this process");
  auto user = may_change_user() ? user_without_rights() : std::nullopt;
  if (user && !has_room_for(*user)) user.reset();
  if (keeps_ptrace || landlock_version() == 0) VMSIGHT_TRY_VOID(enter_empty_root());
  keep_only_ptrace(keeps_ptrace);
  if (!user) {
    if (::capng_apply(CAPNG_SELECT_CAPS) != 0) return os_error(errno, "drop capabilities");
    return {};
  }
  int at_end_of_parent = 0;  // a signal, of which to change the user makes none
  ::prctl(PR_GET_PDEATHSIG, &at_end_of_parent);
  if (::capng_change_id(static_cast<int>(user->uid), static_cast<int>(user->gid),
                        CAPNG_DROP_SUPP_GRP) != 0) {
    return os_error(errno, fmt::format("become user {}", user->name));
  }
  if (::prctl(PR_SET_PDEATHSIG, at_end_of_parent) != 0)
    return os_error(errno, "keep the signal at the parent's end");
  return {};
}

std::size_t count_entries(const char* folder) {
  std::error_code error;
  const std::filesystem::directory_iterator all(folder, error);
  return error ? 1 : static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace

Result<void> check_may_enter_sandbox() {
  if (count_entries("/proc/self/task") == 1) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = "enter the sandbox: other threads would keep their rights",
               .hint = "enter it before a thread is started"};
}

Result<void> enter_sandbox(const SandboxRights& rights) {
  if (entered) return {};
  VMSIGHT_TRY_VOID(check_may_enter_sandbox());
  ::tzset();  // read before files are out of reach
  for (const int descriptor : inherited) ::close(descriptor);
  VMSIGHT_TRY_VOID(drop_user_and_capabilities(rights.reads != 0));
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) return os_error(errno, "make this process undumpable");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return os_error(errno, "forgo new privileges");
  if (rights.reads == 0) VMSIGHT_TRY_VOID(close_files_and_network());
  VMSIGHT_TRY_VOID(filter_system_calls(rights));
  entered = true;
  return {};
}

bool is_in_sandbox() { return entered; }

void note_inherited_descriptors() {
  const Directory all = list_directory("/proc/self/fd");
  while (const dirent* entry = all ? ::readdir(all.get()) : nullptr) {
    const auto number = parse_whole<int>(entry->d_name);
    if (number && *number > STDERR_FILENO && *number != ::dirfd(all.get()))
      inherited.push_back(*number);
  }
}

SandboxSupport sandbox_support() {
  SandboxSupport support{.works = has_system_call_filters(), .what = {}};
  support.what = support.works ? "seccomp" : "the kernel has no seccomp filters";
  const int version = landlock_version();
  support.what += version == 0 ? ", no Landlock" : fmt::format(", Landlock {}", version);
  if (::geteuid() != 0) return support;
  const auto user = user_without_rights();
  support.what +=
      user ? fmt::format(", user {}", user->name) : ", and root's: there is no user nobody";
  return support;
}

}  // namespace vmsight
