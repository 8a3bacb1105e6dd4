#include "halt/cgroup.h"

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <cerrno>

#include "base/os.h"
#include "host/process.h"

namespace vmsight {
namespace {

constexpr std::size_t max_file = 1u << 20;

/// Takes the text up to `end` (or all of it) off the front.
std::string_view take(std::string_view& text, char end) {
  const std::string_view part = text.substr(0, text.find(end));
  text.remove_prefix(std::min(part.size() + 1, text.size()));
  return part;
}

/// Whether `word` is one of the comma-separated words.
bool lists(std::string_view words, std::string_view word) {
  while (!words.empty()) {
    if (take(words, ',') == word) return true;
  }
  return false;
}

/// mountinfo writes blanks and backslashes as \ and three octal digits.
std::string unescape(std::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && std::all_of(&text[i + 1], &text[i + 4], octal)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

Error cannot(const Freezing& how, std::string_view why) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("freeze the vCPU threads by {}: {}", how.name, why),
          .hint = "halt-map:ptrace and halt-read:ptrace need no cgroup"};
}

bool is_frozen(const std::string& group, const Freezing& how) {
  const std::string state = read_group_file(fmt::format("{}/{}", group, how.state));
  return state.find(how.frozen) != std::string::npos || state.starts_with("FREEZING");
}

/// Whether a group can have a threaded child. The root can, and has none of these files.
Result<void> check_may_have_threads(const std::string& group) {
  const std::string type = read_group_file(group + "/cgroup.type");
  if (type.starts_with("domain invalid")) {
    return cannot(freezing_v2, fmt::format("the type of {} is \"domain invalid\"", group));
  }
  if (!type.empty() && ::access((group + "/cgroup.freeze").c_str(), F_OK) != 0) {
    return cannot(freezing_v2, "the host's kernel is older than Linux 5.2");
  }
  if (!type.starts_with("domain") || type.starts_with("domain threaded")) return {};
  constexpr std::array<std::string_view, 4> of_threads = {"cpu", "cpuset", "perf_event", "pids"};
  const std::string enabled = read_group_file(group + "/cgroup.subtree_control");
  std::string_view rest = std::string_view(enabled).substr(0, enabled.find('\n'));
  while (!rest.empty()) {
    const std::string_view controller = take(rest, ' ');
    if (std::find(of_threads.begin(), of_threads.end(), controller) != of_threads.end()) continue;
    return cannot(freezing_v2, fmt::format("{} shares out \"{}\" to its children, which threads "
                                           "cannot have",
                                           group, controller));
  }
  return {};
}

}  // namespace

std::string read_group_file(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  while (file && text.size() < max_file) {
    std::array<char, 4096> chunk;
    const ssize_t got = ::read(file.get(), chunk.data(), chunk.size());
    if (got <= 0) break;
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  return text;
}

// 37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer
std::optional<CgroupMount> find_cgroup_mount(std::string_view mountinfo, int version,
                                             std::string_view controller) {
  while (!mountinfo.empty()) {
    std::string_view line = take(mountinfo, '\n');
    for (int i = 0; i < 3; ++i) take(line, ' ');
    const std::string_view root = take(line, ' '), path = take(line, ' ');
    const auto dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    line.remove_prefix(dash + 3);
    const std::string_view type = take(line, ' ');
    take(line, ' ');  // the source
    const bool wanted =
        version == 2 ? type == "cgroup2" : type == "cgroup" && lists(line, controller);
    if (wanted) return CgroupMount{unescape(root), unescape(path)};
  }
  return std::nullopt;
}

// 6:freezer:/machine/web1
// 0::/machine.slice/web1.scope
std::optional<std::string_view> find_cgroup(std::string_view text, int version,
                                            std::string_view controller) {
  while (!text.empty()) {
    std::string_view line = take(text, '\n');
    const std::string_view id = take(line, ':'), controllers = take(line, ':');
    const bool wanted =
        version == 2 ? id == "0" && controllers.empty() : lists(controllers, controller);
    if (wanted && line.starts_with('/')) return line;
  }
  return std::nullopt;
}

Result<std::vector<std::string>> groups_of(pid_t pid, std::span<const pid_t> tids,
                                           const Freezing& how) {
  VMSIGHT_TRY(const std::string mountinfo, read_proc_file(::getpid(), "mountinfo"));
  const auto mount = find_cgroup_mount(mountinfo, how.version);
  if (!mount) return cannot(how, "no hierarchy that can freeze is mounted");
  const std::string root = mount->root == "/" ? "" : mount->root;
  std::vector<std::string> groups;
  for (const pid_t tid : tids) {
    const auto text = read_proc_file(pid, fmt::format("task/{}/cgroup", tid));
    if (!text) continue;
    const auto path = find_cgroup(*text, how.version);
    if (!path) return cannot(how, "the threads are in no group of it");
    const std::string_view rest =
        path->starts_with(root) ? path->substr(root.size()) : std::string_view("/..");
    if (rest.starts_with("/..") || path->ends_with(" (deleted)")) {
      return cannot(how, fmt::format("their group {} is not visible here", *path));
    }
    std::string group = mount->path + std::string(rest == "/" ? "" : rest);
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) {
      groups.push_back(std::move(group));
    }
  }
  return groups;
}

Result<void> check_freezable(const std::string& group, const Freezing& how) {
  const std::string_view name = std::string_view(group).substr(group.rfind('/') + 1);
  if (name.starts_with(our_group_prefix)) {
    Error error = cannot(how, fmt::format("another vmsight does, in {}", group));
    error.hint = "end that one; if it was killed, `vmsight doctor --recover` undoes it";
    return error;
  }
  for (const std::string& needed : {group, fmt::format("{}/{}", group, how.members)}) {
    if (::access(needed.c_str(), W_OK) == 0) continue;
    Error error = os_error(errno, fmt::format("write to {}", needed));
    error.hint = "run vmsight as root; or halt-map:ptrace and halt-read:ptrace need no cgroup";
    return error;
  }
  if (is_frozen(group, how)) {
    Error error = cannot(how, fmt::format("somebody else has frozen {}", group));
    error.hint = "the guest stands already: live-map and live-read show one moment";
    return error;
  }
  return how.version == 2 ? check_may_have_threads(group) : Result<void>();
}

}  // namespace vmsight
