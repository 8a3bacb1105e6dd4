// vmsight ps VM: processes and threads.
#include <algorithm>

#include "base/text.h"
#include "cli/attach.h"
#include "cli/filters.h"
#include "cli/short_options.h"
#include "render/format.h"
#include "render/ps_text.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

using Argument = ShortOption::Argument;

// All of ps (procps 4.0) that means something for a guest. What is not here is refused: -l and
// -o wchan among it, since the function that a thread waits in is what `stack` shows.
constexpr ShortOption short_options[] = {
    {'-', 'A', Argument::none, "--all"},        {'-', 'C', Argument::required, "--comm"},
    {'-', 'F', Argument::none, "--extra-full"}, {'-', 'G', Argument::required, "--Group"},
    {'-', 'H', Argument::none, "--hierarchy"},  {'-', 'L', Argument::none, "--lwp"},
    {'-', 'N', Argument::none, "--deselect"},   {'-', 'T', Argument::none, "--threads"},
    {'-', 'U', Argument::required, "--User"},   {'-', 'a', Argument::none, "--with-terminal"},
    {'-', 'd', Argument::none, "--no-leaders"}, {'-', 'e', Argument::none, "--all"},
    {'-', 'f', Argument::none, "--full"},       {'-', 'g', Argument::required, "--sid"},
    {'-', 'h', Argument::none, "--help"},       {'-', 'j', Argument::none, "--jobs"},
    {'-', 'o', Argument::required, "--format"}, {'-', 'p', Argument::required, "--pid"},
    {'-', 'q', Argument::required, "--pid"},    {'-', 's', Argument::required, "--sid"},
    {'-', 't', Argument::required, "--tty"},    {'-', 'u', Argument::required, "--user"},
    {'-', 'w', Argument::none, "--wide"},
};

using Numbers = std::vector<std::int64_t>;

/// "1,2 3": as ps separates what it takes lists of.
std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(", "), text.size());
    if (end > 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

std::optional<std::int64_t> number_in(std::string_view text) {
  const auto value = parse_whole<std::int64_t>(text);
  return value && *value >= 0 ? value : std::nullopt;
}

class Ps : public Verb {
 public:
  Result<void> rewrite(std::vector<std::string>& words) const override {
    // `--sort -rss`: the dash is part of the value.
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
      if (words[i] != "--sort") continue;
      words[i] += "=" + words[i + 1];
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
    return expand_short_options("ps", short_options, words);
  }

  void declare(CLI::App& app) override {
    app.add_option("WORD", bsd_, "ax, aux, axo COL,... : as to ps without a dash; or PIDs")
        ->group("Arguments");
    declare_choice(app);
    declare_format(app);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY_VOID(take_bsd_options());
    VMSIGHT_TRY_VOID(take_lists());
    VMSIGHT_TRY_VOID(choose_columns());
    session.common.csv = csv_;
    session.common.json |= json_;
    session.common.headers &= !no_headers_;
    StateVerb verb;
    verb.rows = format_.threads ? part_threads : part_processes;
    verb.options.parts = part_os | part_processes;
    if (format_.threads) verb.options.parts |= part_threads;
    verb.shown = verb.options.parts & ~part_os;
    if (shows_cgroups() || session.common.json || csv_)
      verb.options.parts |= part_groups_of_processes;
    if (chosen_alone()) verb.options.pid = static_cast<std::int32_t>(pids_.front());
    format_.forest = arms_ ? PsForest::arms : indented_ ? PsForest::spaces : PsForest::none;
    format_.table = {.headers = session.common.headers, .width = wide_ ? 0 : session.width};
    // A wrong column is told before the guest is read.
    Output nowhere;
    VMSIGHT_TRY_VOID(print_processes(nowhere, State{}, format_));
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Guest&) {
      static_cast<void>(print_processes(out, state, format_));
    };
    return show_state(session, verb);
  }

 private:
  void declare_choice(CLI::App& app) {
    const auto list = [&](const char* name, std::vector<std::string>& into, const char* what,
                          const char* type) {
      one_value_each(app.add_option(name, into, what))->group(filter_group)->type_name(type);
    };
    const auto flag = [&](const char* name, bool& into, const char* what) {
      app.add_flag(name, into, what)->group(filter_group);
    };
    list("-p,--pid", pid_words_, "select by process ID (several selections add up)", "PID,...");
    list("--ppid", parent_words_, "select by parent process ID: the children of these", "PID,...");
    list("-u,--user", user_words_, "select by effective user ID", "UID,...");
    list("-U,--User", real_user_words_, "select by real user ID", "UID,...");
    list("-G,--Group", group_words_, "select by real group ID", "GID,...");
    list("--group", egroup_words_, "select by effective group ID", "GID,...");
    list("-g,-s,--sid", session_words_, "select by session ID", "SID,...");
    list("-t,--tty", terminals_, "select by terminal: ttyS0, pts/0, or - for those without one",
         "TTY,...");
    list("-C,--comm", names_, "select by command name; * and ? are wildcards", "NAME,...");
    flag("-N,--deselect", deselect_, "all processes except the selected ones");
    flag("-a,--with-terminal", with_terminal_,
         "select all processes with a terminal, except session leaders");
    flag("-d,--no-leaders", no_leaders_, "select all processes except session leaders");
    flag("--no-kthreads", no_kthreads_, "leave out kernel threads, whatever else is selected");
    flag("-e,-A,--all", all_,
         "select all processes, which is the default; without -f only with the columns PID, TTY, "
         "TIME and CMD, as ps shows them");
  }

  void declare_format(CLI::App& app) {
    const auto flag = [&](const char* name, bool& into, const char* what) {
      app.add_flag(name, into, what)->group(format_group);
    };
    one_value_each(
        app.add_option(
            "-o,--format", column_words_,
            "columns, such as pid,uid,validity,cmd; NAME=HEADER renames one; or text, json, csv: "
            "all fields of --json as CSV"))
        ->group(format_group)
        ->type_name("COL,...");
    app.add_option("--sort", format_.sort, "columns to sort by; - before one turns it around")
        ->group(format_group)
        ->type_name("COL,...");
    flag("-f,--full", full_, "full-format listing, which is the default");
    flag("-F,--extra-full", extra_full_, "... with SZ, RSS and PSR");
    flag("-j,--jobs", jobs_, "columns for the process group and the session: PGID and SID");
    flag("-L,--lwp", lwp_, "a line for each thread, with LWP");
    flag("-T,--threads", format_.threads, "a line for each thread, with SPID");
    flag("--forest,--tree", arms_, "children under their parents, with arms");
    flag("-H,--hierarchy", indented_, "... with spaces");
    flag("-w,--wide", wide_, "do not cut lines at the terminal's width");
  }

  /// Letters as to ps without a dash, the values that some take, and PIDs.
  Result<void> take_bsd_options() {
    for (std::size_t i = 0; i < bsd_.size(); ++i) {
      const std::string word = bsd_[i];
      if (word.find_first_not_of("0123456789, ") == word.npos) {
        pid_words_.push_back(word);
        continue;
      }
      for (const char letter : word) {
        const bool takes = letter == 'o' || letter == 'k' || letter == 'p' || letter == 'U';
        if (!takes) {
          if (!take_bsd_letter(letter)) return unknown_word(word);
          continue;
        }
        if (++i == bsd_.size()) return unknown_word(word);
        if (letter == 'k') format_.sort = bsd_[i];
        if (letter == 'o') column_words_.push_back(bsd_[i]);
        if (letter == 'p') pid_words_.push_back(bsd_[i]);
        if (letter == 'U') user_words_.push_back(bsd_[i]);
      }
    }
    // Without x only what has a terminal.
    if (bsd_a_ && !bsd_x_) on_terminal_ = true;
    return {};
  }

  bool take_bsd_letter(char letter) {
    constexpr std::string_view known = "axufwcrhLTHj";
    if (known.find(letter) == known.npos) return false;
    is_bsd_ = true;
    bsd_a_ |= letter == 'a';
    bsd_x_ |= letter == 'x';
    user_oriented_ |= letter == 'u';
    bsd_jobs_ |= letter == 'j';
    arms_ |= letter == 'f';
    wide_ |= letter == 'w';
    format_.names_only |= letter == 'c';
    running_ |= letter == 'r';
    no_headers_ |= letter == 'h';
    lwp_ |= letter == 'L';
    format_.threads |= letter == 'H';
    return letter != 'T';  // "this terminal" is none of the guest's
  }

  static Error unknown_word(const std::string& word) {
    return usage_error("ps: '" + word + "' is no option",
                       "letters without a dash: a c f h H j k L o p r u U w x; or PIDs");
  }

  static Result<void> take_numbers(const std::vector<std::string>& words, std::string_view what,
                                   Numbers& into) {
    for (const std::string& list : words) {
      for (const std::string& word : split(list)) {
        const bool has_names = what == "user ID" || what == "group ID";
        const auto number = word == "root" && has_names ? 0 : number_in(word);
        if (!number) {
          return usage_error(fmt::format("ps: '{}' is no {}", word, what),
                             "a number; names of users and groups are in the guest's files");
        }
        into.push_back(*number);
      }
    }
    return {};
  }

  Result<void> take_lists() {
    VMSIGHT_TRY_VOID(take_numbers(pid_words_, "PID", pids_));
    VMSIGHT_TRY_VOID(take_numbers(parent_words_, "PID", parents_));
    VMSIGHT_TRY_VOID(take_numbers(user_words_, "user ID", users_));
    VMSIGHT_TRY_VOID(take_numbers(real_user_words_, "user ID", real_users_));
    VMSIGHT_TRY_VOID(take_numbers(group_words_, "group ID", groups_));
    VMSIGHT_TRY_VOID(take_numbers(egroup_words_, "group ID", egroups_));
    VMSIGHT_TRY_VOID(take_numbers(session_words_, "session", sessions_));
    for (auto* list : {&names_, &terminals_}) {
      std::vector<std::string> words;
      for (const std::string& text : *list) {
        for (std::string& word : split(text)) words.push_back(std::move(word));
      }
      *list = std::move(words);
    }
    for (std::string& terminal : terminals_) {
      if (terminal.starts_with("/dev/")) terminal.erase(0, 5);
    }
    for (const std::string& text : column_words_) {
      // No column has these names, and other verbs have them in --format.
      csv_ |= text == "csv";
      json_ |= text == "json";
      if (text == "csv" || text == "json" || text == "text") continue;
      for (std::string& word : split(text)) format_.columns.push_back(std::move(word));
    }
    return {};
  }

  /// The columns of ps for its options; without any of them those of -f.
  Result<void> choose_columns() {
    const bool spid = format_.threads;
    format_.threads |= lwp_;
    if (!format_.columns.empty()) {
      if (!extra_full_ && !jobs_ && !bsd_jobs_ && !user_oriented_) return {};
      return usage_error("ps: -o chooses the columns, and so do -F, -j, j and u",
                         "give one of them");
    }
    auto& columns = format_.columns;
    const auto add = [&](std::initializer_list<const char*> names) {
      columns.insert(columns.end(), names.begin(), names.end());
    };
    if (user_oriented_) {
      add({"user", "pid"});
      if (lwp_) add({"lwp"});
      add({"%cpu"});
      if (lwp_) add({"nlwp"});
      add({"%mem", "vsz", "rss", "tname", "stat", "start_time", "bsdtime", "command"});
      return {};
    }
    if (bsd_jobs_) {
      add({"ppid", "pid", "pgid", "sid", "tname", "tpgid", "stat", "uid", "bsdtime", "command"});
      return {};
    }
    if (is_bsd_) {
      add({"pid"});
      if (lwp_) add({"lwp"});
      add({"tname", "stat", "bsdtime", "command"});
      return {};
    }
    if ((all_ || jobs_ || lwp_ || spid) && !full_ && !extra_full_) {
      add({"pid"});
      if (spid) add({"spid"});
      if (jobs_) add({"pgid", "sid"});
      if (lwp_) add({"lwp"});
      add({"tname", "time", "ucmd"});
      return {};
    }
    add({"uid", "pid"});
    if (spid) add({"spid"});
    add({"ppid"});
    if (jobs_) add({"pgid", "sid"});
    if (lwp_) add({"lwp"});
    add({"c"});
    if (lwp_) add({"nlwp"});
    if (extra_full_) add({"sz", "rss", "psr"});
    add({"stime", "tname", "time", "cmd"});
    return {};
  }

  bool names_any() const {
    return !pids_.empty() || !parents_.empty() || !users_.empty() || !real_users_.empty() ||
           !groups_.empty() || !egroups_.empty() || !sessions_.empty() || !terminals_.empty() ||
           !names_.empty() || with_terminal_ || no_leaders_ || on_terminal_;
  }

  /// Is it one process, and nothing that others could be too?
  bool chosen_alone() const {
    return pids_.size() == 1 && pids_.front() <= INT32_MAX && !all_ && !deselect_ &&
           parents_.empty() && users_.empty() && real_users_.empty() && groups_.empty() &&
           egroups_.empty() && sessions_.empty() && terminals_.empty() && names_.empty() &&
           !with_terminal_ && !no_leaders_ && !on_terminal_;
  }

  static bool has(const Numbers& wanted, std::optional<std::int64_t> value) {
    return value && std::find(wanted.begin(), wanted.end(), *value) != wanted.end();
  }

  /// As ps: what meets any of the criteria, or what meets none.
  bool meets_any(const Process& process) const {
    const auto terminal = terminal_of(process);
    const bool has_terminal = process.tty_nr != 0, leads = process.session == process.pid;
    return has(pids_, process.pid) || has(parents_, process.ppid) || has(users_, process.euid) ||
           has(real_users_, process.uid) || has(groups_, process.gid) ||
           has(egroups_, process.egid) || has(sessions_, process.session) ||
           (!names_.empty() && matches_any(names_, process.comm)) ||
           is_on_any(terminals_, terminal) || (with_terminal_ && has_terminal && !leads) ||
           (no_leaders_ && !leads) || (on_terminal_ && has_terminal);
  }

  /// "S0" and "1" are ttyS0 and tty1, too.
  static bool is_on_any(const std::vector<std::string>& wanted, const std::string& terminal) {
    return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& word) {
      return terminal == word || terminal == "tty" + word;
    });
  }

  static std::string terminal_of(const Process& process) {
    return process.tty_nr == 0 ? "-" : terminal_name(process.tty_nr);
  }

  bool wanted(const Process& process) const {
    if (no_kthreads_ && process.kernel_thread) return false;
    if (running_ && process.state != 'R' && process.state != 'D') return false;
    const bool met = all_ || !names_any() || meets_any(process);
    return met != deselect_;
  }

  Result<void> filter(State& state) const {
    std::erase_if(state.processes, [this](const Process& p) { return !wanted(p); });
    keep_threads_of_processes(state);
    if (!pids_.empty() && state.processes.empty() && !deselect_) {
      return no_such_pid(static_cast<std::int32_t>(pids_.front()));
    }
    return {};
  }

  bool shows_cgroups() const {
    return std::any_of(format_.columns.begin(), format_.columns.end(), [](const std::string& word) {
      return word.substr(0, word.find('=')) == "cgroup";
    });
  }

  bool csv_ = false, json_ = false;
  std::vector<std::string> bsd_, column_words_, pid_words_, parent_words_, user_words_,
      real_user_words_, group_words_, egroup_words_, session_words_, terminals_, names_;
  Numbers pids_, parents_, users_, real_users_, groups_, egroups_, sessions_;
  bool all_ = false, deselect_ = false, with_terminal_ = false, no_leaders_ = false,
       on_terminal_ = false, running_ = false, no_kthreads_ = false;
  bool arms_ = false, indented_ = false, is_bsd_ = false, full_ = false, extra_full_ = false,
       jobs_ = false, bsd_jobs_ = false, lwp_ = false, user_oriented_ = false, wide_ = false,
       no_headers_ = false, bsd_a_ = false, bsd_x_ = false;
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
    .shows_records = true,
    .make = make_verb<Ps>,
};

}  // namespace vmsight
