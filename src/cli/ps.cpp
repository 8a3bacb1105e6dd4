// vmsight ps VM: processes and threads.
#include <algorithm>
#include <ctime>

#include "cli/filters.h"
#include "cli/target.h"
#include "render/ps.h"

namespace vmsight {
namespace {

class Ps : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("WORD", bsd_, "ax, aux, auxf ...: as to ps without a dash")->group("Arguments");
    app.add_option("-p,--pid", pids_, "only these PIDs")
        ->group(filter_group)
        ->type_name("PID,...")
        ->delimiter(',');
    app.add_option("--ppid", parents_, "only children of these")
        ->group(filter_group)
        ->type_name("PID,...")
        ->delimiter(',');
    app.add_option("-u,--user", users_, "only these user IDs (effective)")
        ->group(filter_group)
        ->type_name("UID,...")
        ->delimiter(',');
    app.add_option("-C,--comm", names_, "only commands of this name (* and ? match)")
        ->group(filter_group)
        ->type_name("NAME,...")
        ->delimiter(',');
    app.add_flag("-e,-A,-f,--full", ignored_, "")->group("");  // always
    app.add_flag("--no-kthreads", no_kthreads_, "no kernel threads")->group(filter_group);
    app.add_option("-o,--format", format_.columns, "columns, such as pid,uid,validity,cmd")
        ->group(format_group)
        ->type_name("COL,...")
        ->delimiter(',');
    app.add_option("--sort", format_.sort, "columns to sort by; - before one turns it around")
        ->group(format_group)
        ->type_name("COL,...");
    app.add_flag("-T,-L,--threads", format_.threads, "a line for each thread")->group(format_group);
    app.add_flag("--forest,--tree", format_.forest, "children under their parents")
        ->group(format_group);
    app.add_flag("-w,--wide", wide_, "do not cut lines at the terminal's width")
        ->group(format_group);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY_VOID(take_bsd_options());
    StateVerb verb;
    verb.options.parts = part_os | part_processes;
    if (format_.threads) verb.options.parts |= part_threads;
    verb.shown = verb.options.parts & ~part_os;
    if (pids_.size() == 1) verb.options.pid = pids_.front();
    format_.table = {.headers = session.common.headers, .width = wide_ ? 0 : session.width};
    format_.now_unix_ns = std::int64_t{std::time(nullptr)} * 1'000'000'000;
    // A wrong column is told before the guest is read.
    Output nowhere;
    VMSIGHT_TRY_VOID(print_processes(nowhere, State{}, format_));
    verb.filter = [this](State& state, Target&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Target&) {
      static_cast<void>(print_processes(out, state, format_));
    };
    return show_state(session, verb);
  }

 private:
  /// All processes are shown whatever is asked, so a and x ask for nothing.
  Result<void> take_bsd_options() {
    for (const char letter : bsd_) {
      if (letter == 'u') {
        if (format_.columns.empty())
          format_.columns = {"euid", "pid",  "c",     "vsz",  "rss",
                             "tty",  "stat", "stime", "time", "cmd"};
      } else if (letter == 'f') {
        format_.forest = true;
      } else if (letter == 'w') {
        wide_ = true;
      } else if (letter != 'a' && letter != 'x' && letter != 'e') {
        return usage_error("ps: '" + bsd_ + "' is no option",
                           "letters: a e f u w x; `--pid " + bsd_ + "` chooses a process");
      }
    }
    return {};
  }

  bool wanted(const Process& process) const {
    return among(pids_, process.pid) && among(parents_, process.ppid) &&
           (users_.empty() || (process.euid && among(users_, *process.euid))) &&
           matches_any(names_, process.comm) && !(no_kthreads_ && process.kernel_thread);
  }

  Result<void> filter(State& state) const {
    std::erase_if(state.processes, [this](const Process& p) { return !wanted(p); });
    keep_threads_of_processes(state);
    if (!pids_.empty() && state.processes.empty()) return no_such_pid(pids_.front());
    return {};
  }

  std::string bsd_;
  std::vector<std::int32_t> pids_, parents_;
  std::vector<std::uint32_t> users_;
  std::vector<std::string> names_;
  bool no_kthreads_ = false, wide_ = false, ignored_ = false;
  PsFormat format_;
};

}  // namespace

extern const VerbInfo ps_verb{
    .name = "ps",
    .group = "What is in the guest",
    .arguments = "VM [aux] [options]",
    .summary = "Processes and threads",
    .examples =
        "  vmsight ps web1 aux\n"
        "  vmsight ps web1 --forest\n"
        "  vmsight ps web1 -o pid,uid,rss,validity,cmd --sort -rss\n",
    .make = make_verb<Ps>,
};

}  // namespace vmsight
