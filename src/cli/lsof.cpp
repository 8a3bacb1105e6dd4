// vmsight lsof VM [PATH...]: open files.
#include <unordered_map>
#include <unordered_set>

#include "cli/filters.h"
#include "cli/target.h"
#include "render/lsof.h"

namespace vmsight {
namespace {

class Lsof : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("PATH", paths_, "only these files, and what is open below these directories")
        ->group("Arguments");
    app.add_option("-p,--pid", pids_, "only files of these processes")
        ->group(filter_group)
        ->type_name("PID,...")
        ->delimiter(',');
    app.add_option("-c,--comm", names_, "only files of commands that begin with this")
        ->group(filter_group)
        ->type_name("NAME,...")
        ->delimiter(',');
    app.add_option("-u,--user", users_, "only files of these user IDs")
        ->group(filter_group)
        ->type_name("UID,...")
        ->delimiter(',');
    app.add_option("-d,--fd", fds_, "only these: numbers, cwd, rtd, txt, mem")
        ->group(filter_group)
        ->type_name("FD,...")
        ->delimiter(',');
    app.add_flag("-i,--inet", inet_, "only Internet sockets")->group(filter_group);
    app.add_flag("-U,--unix", unix_, "only unix sockets")->group(filter_group);
    app.add_flag("-n,-P", ignored_, "accepted: addresses and ports are always numbers")->group("");
  }

  Result<void> run(Session& session) override {
    StateVerb verb;
    verb.options.parts = part_processes | part_open_files | part_sockets;
    if (wants_maps()) verb.options.parts |= part_memory_maps;
    if (pids_.size() == 1) verb.options.pid = pids_.front();
    verb.filter = [this](State& state, Target&) { return filter(state); };
    verb.text = [&](Output& out, const State& state, const Target&) {
      print_open_files(out, state, {.headers = session.common.headers});
    };
    return show_state(session, verb);
  }

 private:
  bool sockets_only() const { return inet_ || unix_; }
  bool wants_maps() const { return !sockets_only() && among(fds_, std::string_view("mem")); }

  /// The path itself, or anything below it.
  bool wanted_path(std::string_view path) const {
    if (paths_.empty()) return true;
    for (const std::string& wanted : paths_) {
      if (!path.starts_with(wanted)) continue;
      if (path.size() == wanted.size() || wanted.ends_with('/') || path[wanted.size()] == '/' ||
          path[wanted.size()] == ' ') {
        return true;
      }
    }
    return false;
  }

  bool wanted(const Process& process) const {
    if (!among(pids_, process.pid)) return false;
    if (!users_.empty() && !(process.euid && among(users_, *process.euid))) return false;
    for (const std::string& name : names_) {
      if (process.comm.starts_with(name)) return true;
    }
    return names_.empty();
  }

  bool wanted(const Socket& socket) const {
    const bool inet = socket.family == "inet" || socket.family == "inet6";
    return !sockets_only() || (inet_ && inet) || (unix_ && socket.family == "unix");
  }

  static std::uint64_t key(std::int32_t pid, std::int32_t fd) {
    return std::uint64_t{static_cast<std::uint32_t>(pid)} << 32 | static_cast<std::uint32_t>(fd);
  }

  /// cwd, rtd and txt are paths of the process itself: those not wanted become unknown to it.
  void filter_paths(Process& process) const {
    const auto keep = [this](std::string_view fd, std::string_view& path) {
      if (sockets_only() || !among(fds_, fd) || !wanted_path(path)) path = {};
    };
    keep("cwd", process.cwd);
    keep("rtd", process.root);
    keep("txt", process.exe);
  }

  Result<void> filter(State& state) const {
    std::erase_if(state.processes, [this](const Process& p) { return !wanted(p); });
    if (!pids_.empty() && state.processes.empty()) return no_such_pid(pids_.front());
    std::unordered_set<std::int32_t> pids;
    for (Process& process : state.processes) {
      filter_paths(process);
      pids.insert(process.pid);
    }
    std::erase_if(state.sockets, [&](const Socket& s) {
      return !s.pid || !s.fd || !pids.contains(*s.pid) || !wanted(s);
    });
    std::unordered_set<std::uint64_t> sockets;
    for (const Socket& socket : state.sockets) sockets.insert(key(*socket.pid, *socket.fd));
    std::erase_if(state.open_files, [&](const OpenFile& file) {
      return !pids.contains(file.pid) || !among(fds_, std::to_string(file.fd)) ||
             !wanted_path(file.path) ||
             (sockets_only() && !sockets.contains(key(file.pid, file.fd)));
    });
    std::erase_if(state.memory_maps, [&](const MemoryMap& map) {
      return !pids.contains(map.pid) || map.inode == 0 || !wanted_path(map.path);
    });
    return {};
  }

  std::vector<std::string> paths_, names_, fds_;
  std::vector<std::int32_t> pids_;
  std::vector<std::uint32_t> users_;
  bool inet_ = false, unix_ = false, ignored_ = false;
};

}  // namespace

extern const VerbInfo lsof_verb{
    .name = "lsof",
    .group = "What is in the guest",
    .arguments = "VM [PATH...] [options]",
    .summary = "Open files, with the files that processes run, map and stand in",
    .examples =
        "  vmsight lsof web1 -p 1\n"
        "  vmsight lsof web1 /var/log\n",
    .make = make_verb<Lsof>,
};

}  // namespace vmsight
