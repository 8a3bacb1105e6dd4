#include "cli/lsof_choice.h"

#include <algorithm>

#include "base/text.h"
#include "cli/verb.h"
#include "render/lsof_text.h"

namespace vmsight {
namespace {

/// "3" or "0-2", as -d takes them.
bool in_range(std::string_view range, std::int64_t number) {
  const std::size_t dash = range.find('-');
  const auto first = parse_whole<std::int64_t>(range.substr(0, dash));
  const auto last = dash == range.npos ? first : parse_whole<std::int64_t>(range.substr(dash + 1));
  return first && last && *first <= number && number <= *last;
}

/// What the guest shows behind the name of a file that was removed.
std::string_view without_mark(std::string_view path) {
  constexpr std::string_view mark = " (deleted)";
  return path.ends_with(mark) ? path.substr(0, path.size() - mark.size()) : path;
}

bool is_below(std::string_view path, std::string_view directory) {
  if (directory.ends_with('/')) directory.remove_suffix(1);
  return path == directory || (directory.empty() && path.starts_with('/')) ||
         (path.starts_with(directory) && path.size() > directory.size() &&
          path[directory.size()] == '/');
}

}  // namespace

Result<NamePattern> NamePattern::parse(const std::string& word) {
  const std::size_t end = word.rfind('/');
  if (!word.starts_with('/') || end == 0) return NamePattern(word);
  auto flags = std::regex::extended;
  for (const char letter : word.substr(end + 1)) {
    if (letter == 'b') flags = (flags & ~std::regex::extended) | std::regex::basic;
    if (letter == 'x') flags = (flags & ~std::regex::basic) | std::regex::extended;
    if (letter == 'i') flags |= std::regex::icase;
    if (std::string_view("bix").find(letter) != std::string_view::npos) continue;
    return usage_error(fmt::format("lsof: '{}' has an unknown letter behind its expression", word),
                       "/EXPRESSION/ with b (basic), i (upper and lower case alike), x (extended)");
  }
  try {
    return NamePattern(std::regex(word.substr(1, end - 1), flags));
  } catch (const std::regex_error& error) {
    return usage_error(fmt::format("lsof: '{}' is no regular expression: {}", word, error.what()),
                       "/EXPRESSION/ is one as to grep -E; other words are beginnings of names");
  }
}

bool NamePattern::matches(std::string_view comm) const {
  if (!expression_) return comm.starts_with(start_);
  return std::regex_search(comm.begin(), comm.end(), *expression_);
}

void LsofSet::add(const std::string& list) {
  for (std::string_view word : split_at_commas(list)) {
    const bool is_excluded = word.starts_with('^');
    if (is_excluded) word.remove_prefix(1);
    if (!word.empty()) (is_excluded ? excluded : wanted).emplace_back(word);
  }
}

bool LsofSet::excludes(std::string_view word) const {
  return std::find(excluded.begin(), excluded.end(), word) != excluded.end();
}

bool LsofSet::has(std::string_view word) const {
  return std::find(wanted.begin(), wanted.end(), word) != wanted.end();
}

Result<void> LsofSet::check_numbers(std::string_view what) const {
  for (const auto* words : {&wanted, &excluded}) {
    for (const std::string& word : *words) {
      if (parse_whole<std::int64_t>(word).value_or(-1) < 0) {
        return usage_error(fmt::format("lsof: '{}' is no {}", word, what),
                           "numbers, with commas between them; ^ before one leaves it out");
      }
    }
  }
  return {};
}

unsigned LsofChoice::wanted_bits() const {
  return (pids.wanted.empty() ? 0U : by_pid) | (groups.wanted.empty() ? 0U : by_group) |
         (users.wanted.empty() ? 0U : by_user) | (names.empty() ? 0U : by_name) |
         (fds.empty() ? 0U : by_fd) | (inet.empty() ? 0U : by_inet) |
         (unix_sockets ? by_unix : 0U) | (links_below ? by_links : 0U) |
         (paths.empty() && directories.empty() && trees.empty() ? 0U : by_path);
}

std::optional<std::int32_t> LsofChoice::only_pid() const {
  const bool alone = wanted_bits() == by_pid || (all_of && (wanted_bits() & by_pid) != 0);
  if (!alone || pids.wanted.size() != 1) return std::nullopt;
  return parse_whole<std::int32_t>(pids.wanted.front());
}

bool LsofChoice::may_choose_maps() const {
  const unsigned wanted = wanted_bits();
  const unsigned sockets = by_inet | by_unix;
  if (all_of) {
    if ((wanted & sockets) != 0) return false;
  } else if (wanted != 0 && (wanted & ~sockets) == 0) {
    return false;
  }
  const bool by_fd_alone = wanted == by_fd || (all_of && (wanted & by_fd) != 0);
  return !by_fd_alone || fds.wanted.empty() || fds.has("mem") || fds.has("DEL");
}

bool LsofChoice::matches_any(std::string_view comm, const std::vector<NamePattern>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const NamePattern& pattern) { return pattern.matches(comm); });
}

bool LsofChoice::is_excluded(const Process& process) const {
  return pids.excludes(std::to_string(process.pid)) ||
         groups.excludes(std::to_string(process.pgrp)) ||
         (process.euid && users.excludes(std::to_string(*process.euid))) ||
         matches_any(process.comm, excluded_names);
}

unsigned LsofChoice::bits_of(const Process& process) const {
  return (pids.has(std::to_string(process.pid)) ? by_pid : 0U) |
         (groups.has(std::to_string(process.pgrp)) ? by_group : 0U) |
         (process.euid && users.has(std::to_string(*process.euid)) ? by_user : 0U) |
         (matches_any(process.comm, names) ? by_name : 0U);
}

/// -d: numbers, ranges of them, or the words of the column FD; "fd" for every descriptor.
bool LsofChoice::chooses_fd(const File& file) const {
  if (fds.wanted.empty()) return true;
  return std::any_of(fds.wanted.begin(), fds.wanted.end(), [&](const std::string& word) {
    return word == file.fd || (file.number >= 0 && (word == "fd" || in_range(word, file.number)));
  });
}

bool LsofChoice::matches_path(const File& file) const {
  const std::string_view path = without_mark(file.path);
  const std::string_view name = file.socket != nullptr ? file.socket->local : path;
  const auto is_it = [&](const std::string& one) { return one == path || one == name; };
  if (std::any_of(paths.begin(), paths.end(), is_it)) return true;
  if (path.starts_with('/') && devices_.contains(file.device)) return true;
  for (const std::string& tree : trees) {
    if (is_below(path, tree)) return true;
  }
  return std::any_of(directories.begin(), directories.end(), [&](const std::string& directory) {
    return is_below(path, directory) &&
           (is_below(directory, path) ||
            is_below(directory, path.substr(0, std::max<std::size_t>(path.rfind('/'), 1))));
  });
}

unsigned LsofChoice::bits_of(const File& file) const {
  const bool has_links = file.path.starts_with('/') && file.type != "SOCK" && file.type != "ANON";
  const bool is_inet = file.socket != nullptr &&
                       std::any_of(inet.begin(), inet.end(), [&](const InetAddress& address) {
                         return address.matches(*file.socket);
                       });
  return (!fds.empty() && chooses_fd(file) ? by_fd : 0U) | (is_inet ? by_inet : 0U) |
         (file.socket != nullptr && file.socket->family == "unix" ? by_unix : 0U) |
         (links_below && has_links && file.links < *links_below ? by_links : 0U) |
         (matches_path(file) ? by_path : 0U);
}

bool LsofChoice::chooses(const File& file, unsigned process_bits) const {
  const bool left_out =
      std::any_of(fds.excluded.begin(), fds.excluded.end(), [&](const std::string& word) {
        return word == file.fd ||
               (file.number >= 0 && (word == "fd" || in_range(word, file.number)));
      });
  if (left_out || (file.socket != nullptr && !states.let_pass(*file.socket))) return false;
  const unsigned wanted = wanted_bits();
  const unsigned met = wanted & (process_bits | bits_of(file));
  return wanted == 0 || (all_of ? met == wanted : met != 0);
}

/// cwd, rtd and txt are paths of the process itself: those not chosen become unknown to it.
void LsofChoice::filter_directories(Process& process, unsigned bits) const {
  const auto keep = [&](std::string_view fd, std::string_view& path,
                        std::optional<FileFacts>& facts) {
    const FileFacts of = facts.value_or(FileFacts{.links = ~0U});
    if (path.data() != nullptr &&
        chooses({.fd = fd, .type = of.type, .path = path, .device = of.device, .links = of.links},
                bits)) {
      return;
    }
    path = {};
    facts.reset();
  };
  keep("cwd", process.cwd, process.cwd_file);
  keep("rtd", process.root, process.root_file);
  keep("txt", process.exe, process.exe_file);
}

bool LsofChoice::chooses(const OpenFile& file, unsigned bits, const Sockets& sockets) const {
  const std::string fd = std::to_string(file.fd);
  File one{.fd = fd,
           .type = file.type,
           .path = file.path,
           .device = file.device,
           .links = file.links,
           .number = file.fd};
  const auto [first, last] = sockets.equal_range(lsof_slot(file.tid, file.fd));
  if (first == last) return chooses(one, bits);
  for (auto at = first; at != last; ++at) {
    one.socket = at->second;
    if (chooses(one, bits)) return true;
  }
  return false;
}

void LsofChoice::filter(State& state) const {
  devices_.clear();
  for (const Mount& mount : state.mounts) {
    if (std::find(paths.begin(), paths.end(), mount.target) != paths.end()) {
      devices_.insert(mount.device);
    }
  }
  Sockets sockets;
  for (const Socket& socket : state.sockets) {
    if (socket.tid && socket.fd) sockets.emplace(lsof_slot(*socket.tid, *socket.fd), &socket);
  }
  std::erase_if(state.processes, [this](const Process& p) { return is_excluded(p); });
  std::unordered_map<std::int32_t, unsigned> bits;
  for (Process& process : state.processes) {
    const unsigned of = bits.emplace(process.pid, bits_of(process)).first->second;
    filter_directories(process, of);
  }
  std::unordered_set<std::int32_t> shown;
  std::unordered_set<std::uint64_t> slots;
  std::erase_if(state.open_files, [&](const OpenFile& file) {
    const auto of = bits.find(file.pid);
    if (of == bits.end() || !chooses(file, of->second, sockets)) return true;
    shown.insert(file.pid);
    slots.insert(lsof_slot(file.tid, file.fd));
    return false;
  });
  std::erase_if(state.memory_maps, [&](const MemoryMap& map) {
    const auto of = bits.find(map.pid);
    const bool gone = map.path.ends_with(" (deleted)");
    if (of == bits.end() || !is_mapped_file(map) ||
        !chooses({.fd = gone ? "DEL" : "mem",
                  .type = map.type,
                  .path = map.path,
                  .device = map.device,
                  .links = gone ? ~0U : map.links},  // lsof does not know them
                 of->second)) {
      return true;
    }
    shown.insert(map.pid);
    return false;
  });
  std::erase_if(state.sockets, [&](const Socket& s) {
    return !s.tid || !s.fd || !slots.contains(lsof_slot(*s.tid, *s.fd));
  });
  std::erase_if(state.processes, [&](const Process& p) {
    const bool has_paths =
        p.cwd.data() != nullptr || p.root.data() != nullptr || p.exe.data() != nullptr;
    return !has_paths && !shown.contains(p.pid);
  });
  std::erase_if(state.threads,
                [&](const Thread& t) { return !bits.contains(t.tgid) || !shown.contains(t.tgid); });
}

}  // namespace vmsight
