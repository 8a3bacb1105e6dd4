#include "halt/freezer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <set>
#include <thread>

#include "host/option_list.h"
#include "host/process.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto breath = 50us;  // the kernel tells of a group's state at most every 10 ms
constexpr std::size_t max_groups = 1024;

Result<void> write_word(const std::string& path, std::string_view word) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file && ::write(file.get(), word.data(), word.size()) == static_cast<ssize_t>(word.size())) {
    return {};
  }
  return os_error(errno, fmt::format("write {} to {}", word, path));
}

/// A thread that has ended is no error.
Result<void> move_thread(pid_t tid, const std::string& group, const Freezing& how) {
  auto moved = write_word(fmt::format("{}/{}", group, how.members), std::to_string(tid));
  if (!moved && moved.error().os_errno != ESRCH) return moved;
  return {};
}

std::vector<pid_t> members(const std::string& group, const Freezing& how) {
  const std::string text = read_group_file(fmt::format("{}/{}", group, how.members));
  std::vector<pid_t> tids;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    const auto tid = parse_number(std::string_view(text).substr(at, end - at));
    if (tid) tids.push_back(static_cast<pid_t>(*tid));
    at = end + 1;
  }
  return tids;
}

/// Back to where it was, with threads that its members made meanwhile; then it is removed.
Result<void> dissolve(const std::string& group, const std::string& parent, const Freezing& how) {
  Result<void> moved;
  constexpr int attempts = 500;
  for (int i = 0; i < attempts; ++i) {
    for (const pid_t tid : members(group, how)) moved = move_thread(tid, parent, how);
    if (::rmdir(group.c_str()) == 0 || errno == ENOENT) return {};
    if (errno != EBUSY) return os_error(errno, "remove " + group);
    std::this_thread::sleep_for(2ms);  // a thread that has ended is in it until it is reaped
  }
  VMSIGHT_TRY_VOID(moved);
  return os_error(EBUSY, "remove " + group);
}

json describe(const Freezing& how, const std::vector<std::string>& parents,
              const std::string& name) {
  return {{"version", how.version}, {"parents", parents}, {"name", name}};
}

/// Unlike the name that an earlier process with our PID may have left.
Result<std::string> fresh_name(pid_t pid) {
  static std::atomic<unsigned> number = 0;
  VMSIGHT_TRY(const ProcessId us, identify(::getpid()));
  return fmt::format("{}{}-{}-{}-{}", our_group_prefix, pid, us.pid, us.start_time, number++);
}

}  // namespace

namespace {

/// What the first way gives that works, by `attempt(how)`.
template <typename Attempt>
auto first_that_works(std::span<const Freezing> ways, Attempt attempt)
    -> decltype(attempt(ways.front())) {
  std::optional<Error> all;
  for (const Freezing& how : ways) {
    auto done = attempt(how);
    if (done || done.error().code == ErrorCode::vm_gone) return done;
    if (!all)
      all = std::move(done).error();
    else
      all->message += "; " + done.error().message;
  }
  VMSIGHT_CHECK(all);
  return *std::move(all);
}

/// The groups that the threads are in, beside each of which one of ours can be made.
Result<std::vector<std::string>> freezable_groups(const ProcessId& vm, std::span<const pid_t> tids,
                                                  const Freezing& how) {
  VMSIGHT_TRY(std::vector<std::string> parents, groups_of(vm.pid, tids, how));
  if (parents.empty() || parents.size() > max_groups) {
    return Error{.code = parents.empty() ? ErrorCode::vm_gone : ErrorCode::unsupported,
                 .message = fmt::format("freeze the vCPU threads of process {}: they are in {} "
                                        "groups",
                                        vm.pid, parents.size())};
  }
  for (const std::string& parent : parents) VMSIGHT_TRY_VOID(check_freezable(parent, how));
  return parents;
}

}  // namespace

Result<void> check_freezer(const ProcessId& vm, std::span<const pid_t> tids,
                           std::span<const Freezing> ways) {
  return first_that_works(ways, [&](const Freezing& how) -> Result<void> {
    auto groups = freezable_groups(vm, tids, how);
    return groups ? Result<void>() : std::move(groups).error();
  });
}

Result<std::unique_ptr<Freezer>> Freezer::prepare(const ProcessId& vm, std::span<const pid_t> tids,
                                                  std::span<const Freezing> ways,
                                                  const ProcessId& author) {
  return first_that_works(ways,
                          [&](const Freezing& how) { return prepare_one(vm, tids, how, author); });
}

Result<std::unique_ptr<Freezer>> Freezer::prepare_one(const ProcessId& vm,
                                                      std::span<const pid_t> tids,
                                                      const Freezing& how,
                                                      const ProcessId& author) {
  VMSIGHT_TRY(const std::vector<std::string> parents, freezable_groups(vm, tids, how));
  VMSIGHT_TRY(const std::string name, fresh_name(vm.pid));
  std::unique_ptr<Freezer> freezer(new Freezer(how, vm.pid));
  for (const std::string& parent : parents) {
    freezer->groups_.push_back({.parent = parent, .path = fmt::format("{}/{}", parent, name)});
  }
  freezer->change_ = describe(how, parents, name);
  VMSIGHT_TRY(freezer->entry_,
              JournalEntry::prepare(vm, make_change(freezer_change, freezer->change_), author));
  return freezer;
}

Result<void> Freezer::enter() {
  VMSIGHT_CHECK(!entered_);
  for (const Group& group : groups_) VMSIGHT_TRY_VOID(check_freezable(group.parent, how_));
  VMSIGHT_TRY_VOID(entry_.write());
  entered_ = true;
  for (Group& group : groups_) {
    auto made = make(group);
    if (made) continue;
    static_cast<void>(leave());
    return made;
  }
  return {};
}

Result<void> Freezer::make(Group& group) {
  constexpr mode_t mode = 0755;
  if (::mkdir(group.path.c_str(), mode) != 0) return os_error(errno, "make cgroup " + group.path);
  if (how_.version == 2) {
    auto threaded = write_word(group.path + "/cgroup.type", "threaded");
    if (!threaded && threaded.error().os_errno == EOPNOTSUPP) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("freeze the vCPU threads by cgroup v2: {} can have no "
                                          "threaded group: others of its children hold processes",
                                          group.parent),
                   .hint = "halt-map:ptrace and halt-read:ptrace need no cgroup"};
    }
    VMSIGHT_TRY_VOID(threaded);
  }
  const std::string control = fmt::format("{}/{}", group.path, how_.control);
  const std::string state = fmt::format("{}/{}", group.path, how_.state);
  group.control = UniqueFd(::open(control.c_str(), O_WRONLY | O_CLOEXEC));
  group.state = UniqueFd(::open(state.c_str(), O_RDONLY | O_CLOEXEC));
  if (group.control && group.state) return {};
  return os_error(errno, fmt::format("open {} and {}", control, state));
}

Freezer::Group* Freezer::group_beside(const std::string& parent) {
  const auto found = std::find_if(groups_.begin(), groups_.end(),
                                  [&](const Group& group) { return group.parent == parent; });
  return found == groups_.end() ? nullptr : &*found;
}

Result<bool> Freezer::take_in(std::span<const pid_t> tids) {
  std::set<pid_t> inside;
  for (const Group& group : groups_) {
    for (const pid_t tid : members(group.path, how_)) inside.insert(tid);
  }
  bool any = false;
  for (const pid_t tid : tids) {
    if (inside.contains(tid)) continue;
    VMSIGHT_TRY(const auto where, groups_of(pid_, {&tid, 1}, how_));
    if (where.empty()) continue;  // it has ended
    const Group* group = group_beside(where.front());
    if (group == nullptr) {
      return Error{.code = ErrorCode::not_found,
                   .message = fmt::format("freeze thread {}: it is in {} now", tid, where.front())};
    }
    VMSIGHT_TRY_VOID(move_thread(tid, group->path, how_));
    any = true;
  }
  return any;
}

Result<void> Freezer::tell(std::string_view word) {
  Result<void> all;
  for (const Group& group : groups_) {
    if (::pwrite(group.control.get(), word.data(), word.size(), 0) >= 0) continue;
    if (all)
      all = os_error(errno, fmt::format("write {} to {}/{}", word, group.path, how_.control));
  }
  return all;
}

Result<void> Freezer::freeze(Clock::time_point deadline) {
  VMSIGHT_TRY_VOID(tell(how_.freeze));
  for (const Group& group : groups_) {
    while (true) {
      std::array<char, 256> text;
      const ssize_t got = ::pread(group.state.get(), text.data(), text.size(), 0);
      if (got < 0) return os_error(errno, fmt::format("read {}/{}", group.path, how_.state));
      const std::string_view state(text.data(), static_cast<std::size_t>(got));
      if (state.find(how_.frozen) != std::string_view::npos) break;
      if (Clock::now() >= deadline) {
        return Error{.code = ErrorCode::timeout,
                     .message = fmt::format("freeze the vCPU threads of process {}: they do not "
                                            "stand in time",
                                            pid_),
                     .hint = "is one stuck in the host's kernel?"};
      }
      std::this_thread::sleep_for(breath);
    }
  }
  return {};
}

/// When the VM ends its groups are removed, and with them what was frozen.
Result<void> Freezer::thaw() {
  auto thawed = tell(how_.thaw);
  if (!thawed && thawed.error().os_errno == ENODEV) return {};
  return thawed;
}

Result<void> Freezer::leave() {
  if (!entered_) return {};
  entered_ = false;
  for (Group& group : groups_) {
    group.control.reset();
    group.state.reset();
  }
  VMSIGHT_TRY_VOID(undo_freezer(change_));  // if it fails, recovery has the record
  return entry_.remove();
}

Result<void> undo_freezer(const json& change) {
  const Error bad{.code = ErrorCode::bad_data, .message = "undo freezing: not a record of it"};
  if (!change.is_object()) return bad;
  const json name = change.value("name", json()), parents = change.value("parents", json());
  if (!name.is_string() || !parents.is_array() || parents.size() > max_groups) return bad;
  const auto text = name.get<std::string>();
  if (!text.starts_with(our_group_prefix) || text.find('/') != std::string::npos) return bad;
  const Freezing& how = change.value("version", json()) == 1 ? freezing_v1 : freezing_v2;

  Result<void> all;
  const auto note = [&](Result<void> done) {
    if (!done && all) all = std::move(done);
  };
  const auto for_each = [&](auto undo) {
    for (const json& parent : parents) {
      if (!parent.is_string()) continue;
      const auto group = fmt::format("{}/{}", parent.get<std::string>(), text);
      if (::access(group.c_str(), F_OK) == 0) note(undo(group, parent.get<std::string>()));
    }
  };
  for_each([&](const std::string& group, const std::string&) {  // before anything else
    return write_word(fmt::format("{}/{}", group, how.control), how.thaw);
  });
  for_each([&](const std::string& group, const std::string& parent) {
    return dissolve(group, parent, how);
  });
  return all;
}

constinit const ChangeKind freezer_change{
    .name = "frozen",
    .what = "the vCPU threads were in a cgroup that freezes them",
    .undo = [](const ProcessId&, const json& payload) { return undo_freezer(payload); },
    .outlives_vm = true};

}  // namespace vmsight
