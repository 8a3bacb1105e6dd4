// vmsight lsof VM [PATH...]: open files.
#include <set>

#include "base/text.h"
#include "cli/attach.h"
#include "cli/filters.h"
#include "cli/lsof_choice.h"
#include "cli/short_options.h"
#include "render/lsof_text.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

using Argument = ShortOption::Argument;

// All that lsof 4.95 takes and that means something for a guest. What is not here is refused.
constexpr ShortOption short_options[] = {
    {'-', 'a', Argument::none, "--and"},
    {'-', 'b', Argument::none, ""},  // never asks the guest for anything, so nothing blocks
    {'-', 'c', Argument::required, "--comm"},
    {'-', 'd', Argument::required, "--fd"},
    {'-', 'g', Argument::optional, "--pgid"},
    {'-', 'h', Argument::none, "--help"},
    {'-', 'i', Argument::optional, "--inet"},
    {'-', 'K', Argument::optional, "--tasks"},
    {'-', 'l', Argument::none, ""},  // user IDs are always numbers
    {'-', 'L', Argument::none, "--no-links"},
    {'-', 'n', Argument::none, ""},  // ... and addresses
    {'-', 'o', Argument::none, "--offset"},
    {'-', 'O', Argument::none, ""},
    {'-', 'p', Argument::required, "--pid"},
    {'-', 'P', Argument::none, ""},  // ... and ports
    {'-', 'Q', Argument::none, "--found-or-not"},
    {'-', 'R', Argument::none, "--ppid"},
    {'-', 's', Argument::optional, "--size"},
    {'-', 't', Argument::none, "--terse"},
    {'-', 'u', Argument::required, "--user"},
    {'-', 'U', Argument::none, "--unix"},
    {'-', 'w', Argument::none, ""},
    {'+', 'a', Argument::none, "--and"},
    {'+', 'c', Argument::required, "--width"},
    {'+', 'd', Argument::required, "--directory"},
    {'+', 'D', Argument::required, "--below"},
    {'+', 'L', Argument::optional, "--links"},
    {'+', 'w', Argument::none, ""},
};

class Lsof : public Verb {
 public:
  Result<void> rewrite(std::vector<std::string>& words) const override {
    return expand_short_options("lsof", short_options, words);
  }

  void declare(CLI::App& app) override {
    app.add_option("PATH", choice_.paths, "only these files, or what is open of this mount point")
        ->group("Arguments");
    declare_choice(app);
    declare_format(app);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY_VOID(take_options());
    StateVerb verb;
    verb.rows = part_open_files;
    verb.shown = part_processes | part_open_files | part_sockets;
    if (choice_.may_choose_maps()) verb.shown |= part_memory_maps;
    if (format_.tasks) verb.shown |= part_threads;
    // Threads have names too, where one has files of its own.
    verb.options.parts = verb.shown | part_threads | (choice_.paths.empty() ? 0U : part_mounts);
    verb.options.pid = choice_.only_pid();
    format_.table.headers = session.common.headers;
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [&](Output& out, const State& state, const Guest&) {
      print_open_files(out, state, format_);
    };
    verb.verdict = [this](const State& state) { return verdict(state); };
    return show_state(session, verb);
  }

 private:
  void declare_choice(CLI::App& app) {
    const auto list = [&](const char* name, std::vector<std::string>& into, const char* what,
                          const char* type) {
      one_value_each(app.add_option(name, into, what))->group(filter_group)->type_name(type);
    };
    list("-p,--pid", pids_, "files of these processes (^PID: not of this one)", "PID,...");
    list("-c,--comm", names_, "... of commands that begin with this, or match /EXPRESSION/",
         "NAME");
    list("-u,--user", users_, "... of these user IDs (effective)", "UID,...");
    list("-g,--pgid", groups_, "... of these process groups; without any only a column",
         "[PGID,...]");
    list("-d,--fd", fds_, "these: numbers, ranges, cwd, rtd, txt, mem, DEL", "FD,...");
    list("-i,--inet", inet_, "Internet sockets: [46][TCP|UDP][@ADDRESS][:PORT,...]", "[ADDRESS]");
    app.add_flag("-U,--unix", choice_.unix_sockets, "unix sockets")->group(filter_group);
    list("--links", links_, "+L N: files with fewer than N links; +L only the column", "[N]");
    list("--directory", choice_.directories,
         "+d DIR: who has DIR open, or a file or directory directly in it", "DIR");
    list("--below", choice_.trees, "+D DIR: who has DIR open, or anything below it", "DIR");
    app.add_flag("-a,--and", choice_.all_of, "what meets all of these, not any")
        ->group(filter_group);
    list("-s,--size", sizes_,
         "-s PROTOCOL:STATE,...: of its sockets only these (^STATE: not these); -s only sizes",
         "[STATES]");
  }

  void declare_format(CLI::App& app) {
    const auto flag = [&](const char* name, bool& into, const char* what) {
      app.add_flag(name, into, what)->group(format_group);
    };
    flag("-t,--terse", format_.terse, "only PIDs, a line each");
    flag("-R,--ppid", format_.parents, "a column for the parent's PID");
    flag("-o,--offset", format_.offsets, "offsets, not sizes");
    one_value_each(app.add_option("-K,--tasks", tasks_, "what each thread has; i: no threads"))
        ->group(format_group)
        ->type_name("[i]");
    app.add_option("--width", format_.command_width, "+c N: cut COMMAND to N characters; 0: never")
        ->group(format_group)
        ->type_name("N");
    app.add_flag("-Q,--found-or-not", found_or_not_,
                 "exit with status 0 even if nothing that was asked for is open (else 1)")
        ->group(format_group);
    app.add_flag("-L,--no-links", no_links_, "no column for the number of links (the default)")
        ->group("");
    app.add_flag("-n,-P,-l,-b,-w,-O", ignored_, "accepted: they ask for what is always so")
        ->group("");
  }

  Result<void> take_options() {
    for (const auto& [words, set] :
         {std::pair(&pids_, &choice_.pids), std::pair(&groups_, &choice_.groups),
          std::pair(&users_, &choice_.users), std::pair(&fds_, &choice_.fds)}) {
      for (const std::string& word : *words) {
        if (word != no_argument) set->add(word);
      }
    }
    for (const std::string& name : names_) {  // an expression may have commas
      const bool excluded = name.starts_with('^');
      VMSIGHT_TRY(NamePattern pattern, NamePattern::parse(name.substr(excluded)));
      (excluded ? choice_.excluded_names : choice_.names).push_back(std::move(pattern));
    }
    for (std::string& user : choice_.users.wanted) {
      if (user == "root") user = "0";
    }
    for (std::string& user : choice_.users.excluded) {
      if (user == "root") user = "0";
    }
    VMSIGHT_TRY_VOID(choice_.pids.check_numbers("PID"));
    VMSIGHT_TRY_VOID(choice_.groups.check_numbers("process group"));
    VMSIGHT_TRY_VOID(choice_.users.check_numbers("user ID (names are in the guest's files)"));
    VMSIGHT_TRY_VOID(check_fds());
    format_.groups = !groups_.empty();
    for (const std::string& address : inet_) {
      VMSIGHT_TRY(InetAddress one, InetAddress::parse(address == no_argument ? "" : address));
      choice_.inet.push_back(std::move(one));
    }
    for (const std::string& states : sizes_) {
      if (states == no_argument) {
        format_.sizes = true;
      } else {
        VMSIGHT_TRY_VOID(choice_.states.add(states));
      }
    }
    if (format_.sizes && format_.offsets) {
      return usage_error("lsof: -o and -s exclude each other", "give one of them");
    }
    return take_links_and_tasks();
  }

  Result<void> check_fds() const {
    static const std::set<std::string_view> words = {"cwd", "rtd", "txt", "mem", "DEL", "fd"};
    for (const auto* list : {&choice_.fds.wanted, &choice_.fds.excluded}) {
      for (const std::string& fd : *list) {
        if (words.contains(fd) || is_number_or_range(fd)) continue;
        return usage_error("lsof: '" + fd + "' is no descriptor",
                           "numbers, ranges (0-2), cwd, rtd, txt, mem, DEL, fd");
      }
    }
    return {};
  }

  static bool is_number_or_range(const std::string& text) {
    const std::size_t dash = text.find('-');
    const auto first = parse_whole<std::uint32_t>(text.substr(0, dash));
    if (dash == text.npos) return first.has_value();
    const auto last = parse_whole<std::uint32_t>(text.substr(dash + 1));
    return first && last && *first <= *last;
  }

  Result<void> take_links_and_tasks() {
    for (const std::string& links : links_) {
      format_.links = true;
      if (links == no_argument || links == "0") continue;
      if (links.find_first_not_of("0123456789") != links.npos || links.size() > 9) {
        return usage_error("lsof: '" + links + "' is no number of links", "such as +L1");
      }
      choice_.links_below = static_cast<std::uint32_t>(std::stoul(links));
    }
    format_.links = format_.links && !no_links_;
    for (const std::string& tasks : tasks_) {
      if (tasks != no_argument && tasks != "i") {
        return usage_error("lsof: '-K " + tasks + "' is not known", "-K, or -K i");
      }
      format_.tasks = tasks == no_argument;
    }
    return {};
  }

  Result<void> filter(State& state) const {
    for (const std::string& word : choice_.pids.wanted) {
      const bool known =
          std::any_of(state.processes.begin(), state.processes.end(),
                      [&](const Process& p) { return std::to_string(p.pid) == word; });
      if (!known && choice_.only_pid() && !found_or_not_)
        return no_such_pid(static_cast<std::int32_t>(std::strtoll(word.c_str(), nullptr, 10)));
    }
    choice_.filter(state);
    return {};
  }

  /// As lsof's exit status says it.
  Result<void> verdict(const State& state) const {
    if (!choice_.asks() || !state.processes.empty() || found_or_not_) return {};
    return Error{.code = ErrorCode::not_found,
                 .message = "lsof: nothing that was asked for is open",
                 .hint = "without -a a file need meet only one of the options; -Q: no failure"};
  }

  LsofChoice choice_;
  LsofFormat format_;
  std::vector<std::string> pids_, names_, users_, groups_, fds_, inet_, links_, sizes_, tasks_;
  bool found_or_not_ = false, no_links_ = false, ignored_ = false;
};

}  // namespace

extern const VerbInfo lsof_verb{
    .name = "lsof",
    .group = "What is in the guest",
    .arguments = "VM [PATH...] [options]",
    .summary = "Open files, with the files that processes run, map and stand in",
    .examples =
        "  vmsight lsof web1 -p 1\n"
        "  vmsight lsof web1 -i TCP:443 -s TCP:LISTEN\n"
        "  vmsight lsof web1 +D /var/log\n",
    .shows_records = true,
    .make = make_verb<Lsof>,
};

}  // namespace vmsight
