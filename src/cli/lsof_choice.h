// Which files `lsof` lists: criteria that a file meets any of, or with -a all of.
#pragma once

#include <optional>
#include <regex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cli/lsof_address.h"
#include "vmsight/state.h"

namespace vmsight {

/// A list such as "1,^2": what is in it, and what must not be.
struct LsofSet {
  std::vector<std::string> wanted, excluded;

  void add(const std::string& list);
  bool empty() const { return wanted.empty() && excluded.empty(); }
  bool excludes(std::string_view word) const;
  bool has(std::string_view word) const;
  /// usage if a word is no number; `what` says of what the numbers are.
  Result<void> check_numbers(std::string_view what) const;
};

/// What -c takes: the beginning of a command's name, or /EXPRESSION/ with letters behind it.
class NamePattern {
 public:
  static Result<NamePattern> parse(const std::string& word);
  bool matches(std::string_view comm) const;

 private:
  explicit NamePattern(std::string start) : start_(std::move(start)) {}
  explicit NamePattern(std::regex expression) : expression_(std::move(expression)) {}

  std::string start_;
  std::optional<std::regex> expression_;
};

class LsofChoice {
 public:
  // As the options say.
  bool all_of = false;                                 // -a
  LsofSet pids, groups, users, fds;                    // -p -g -u -d
  std::vector<NamePattern> names, excluded_names;      // -c
  std::vector<InetAddress> inet;                       // -i
  SocketStates states;                                 // -s
  bool unix_sockets = false;                           // -U
  std::optional<std::uint32_t> links_below;            // +L
  std::vector<std::string> paths, directories, trees;  // names, +d, +D

  /// Is anything asked for? Then finding nothing is a failure.
  bool asks() const { return wanted_bits() != 0; }
  /// Is it one process, and nothing that others could have too?
  std::optional<std::int32_t> only_pid() const;
  /// Can a memory map be among what is chosen?
  bool may_choose_maps() const;

  /// Drops what is not chosen, and processes of which nothing is left.
  void filter(State& state) const;

 private:
  enum Criterion : unsigned {
    by_pid = 1,
    by_group = 2,
    by_user = 4,
    by_name = 8,
    by_fd = 16,
    by_inet = 32,
    by_unix = 64,
    by_links = 128,
    by_path = 256,
  };
  /// What is asked about a file, whatever it is to its process.
  struct File {
    std::string_view fd, type, path;
    std::uint64_t device = 0;
    std::uint32_t links = 0;
    std::int64_t number = -1;  // of a descriptor
    const Socket* socket = nullptr;
  };
  using Sockets = std::unordered_multimap<std::uint64_t, const Socket*>;

  unsigned wanted_bits() const;
  unsigned bits_of(const Process& process) const;
  unsigned bits_of(const File& file) const;
  bool is_excluded(const Process& process) const;
  bool chooses(const File& file, unsigned process_bits) const;
  bool chooses_fd(const File& file) const;
  bool matches_path(const File& file) const;
  static bool matches_any(std::string_view comm, const std::vector<NamePattern>& patterns);
  void filter_directories(Process& process, unsigned bits) const;
  bool chooses(const OpenFile& file, unsigned bits, const Sockets& sockets) const;

  mutable std::unordered_set<std::uint64_t>
      devices_;  // of file systems that paths are mount points of
};

}  // namespace vmsight
