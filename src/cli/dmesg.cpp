// vmsight dmesg VM: the kernel log, once or as it grows.
#include "cli/moment.h"
#include "cli/state_loop.h"
#include "render/csv.h"
#include "render/log.h"
#include "state/log_tail.h"

namespace vmsight {
namespace {

class Dmesg : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("-l,--level", levels_,
                   "only these levels, such as err,warn; warn+ for warn and worse")
        ->group(filter_group)
        ->type_name("LEVEL,...")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_option("-f,--facility", facilities_, "only these facilities, such as kern,daemon")
        ->group(filter_group)
        ->type_name("NAME,...")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_option("--since", since_, moment_help)->group(filter_group)->type_name("WHEN");
    app.add_option("--until", until_, "as --since")->group(filter_group)->type_name("WHEN");
    app.add_flag("-k,--kernel-messages", kernel_only_, "only the kernel's own (facility kern)")
        ->group(filter_group);
    app.add_flag("-u,--userspace", userspace_only_, "only those of programs")->group(filter_group);
    app.add_option("--tail", tail_, "only the last N records")->group(filter_group)->type_name("N");
    app.add_flag("-w,--follow", follow_,
                 "and whatever is logged from then on, through reboots of the guest")
        ->group("Schedule");
    app.add_flag("-W,--follow-new", follow_new_, "only what is logged from now on")
        ->group("Schedule");
    declare_format(app);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY_VOID(parse());
    session.common.json |= json_;
    VMSIGHT_TRY_VOID(check_format(session.common));
    if (follow_ || follow_new_) return follow(session);
    StateVerb verb;
    verb.rows = part_kernel_log;
    verb.options.parts = parts;
    verb.shown = part_kernel_log;
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Guest&) { print(out, state); };
    return show_state(session, verb);
  }

 private:
  void declare_format(CLI::App& app) {
    const auto flag = [&](const char* name, bool& into, const char* what) {
      app.add_flag(name, into, what)->group(format_group);
    };
    flag("-T,--ctime", format_.wall_clock, "dates by the guest's clock");
    flag("-x,--decode", format_.decode, "facility and level as words");
    flag("-t,--notime", no_time_, "no times");
    flag("-d,--show-delta", format_.delta, "what passed since the line before, too");
    flag("-e,-H,--reltime,--human", format_.relative,
         "the minute by the guest's clock, then what passed since the line before");
    app.add_option("--time-format", time_format_, "delta, reltime, ctime, notime or iso")
        ->group(format_group)
        ->type_name("FORMAT");
    flag("-r,--raw", format_.raw, "level and time as syslog(2) gives them");
    flag("-p,--force-prefix", format_.prefix_each, "the time before each line of a record");
    flag("-J", json_, "as --json");
    app.add_flag("-P,--nopager", ignored_, "accepted: there is no pager")->group("");
  }

  Result<void> take_time_format() {
    if (format_.raw && (format_.wall_clock || format_.decode || no_time_ || format_.delta ||
                        format_.relative || !time_format_.empty())) {
      return usage_error("dmesg: -r shows records as they are, without -d, -e, -H, -T, -t and -x",
                         "give -r alone, or leave it out");
    }
    format_.timestamps = !no_time_;
    if (time_format_.empty()) return {};
    format_.delta |= time_format_ == "delta";
    format_.relative |= time_format_ == "reltime";
    format_.wall_clock |= time_format_ == "ctime";
    format_.timestamps &= time_format_ != "notime";
    format_.iso |= time_format_ == "iso";
    if (format_.delta || format_.relative || format_.wall_clock || format_.iso ||
        !format_.timestamps) {
      return {};
    }
    return usage_error("dmesg: unknown time format '" + time_format_ + "'",
                       "formats: delta reltime ctime notime iso");
  }

  static constexpr unsigned parts = part_kernel_log | part_os;
  static constexpr double follow_rate = 4;  // readings a second

  void print(Output& out, const State& state) {
    format_.boot_unix_ns = state.os.boot_unix_ns;
    print_log(out, state.kernel_log, format_);
  }

  Result<void> follow(Session& session) {
    StateLoop loop(session,
                   {.state = {.parts = parts}, .rate = follow_rate, .count = {}, .duration_s = {}});
    LogTail news;
    std::vector<Problem> told;
    bool has_headings = session.common.headers;
    return loop.run(
        [&](std::unique_ptr<State>& state, const StateLoop::View& view) -> Result<void> {
          if (view.is_first_of_kernel || news.is_of_another_boot(state->kernel_log)) {
            news = {};
            from_.reset();
            to_.reset();
            if (view.number != 0) tail_.reset();
          }
          news.take(*state);
          if (follow_new_ && view.number == 0) state->kernel_log.clear();
          VMSIGHT_TRY_VOID(filter(*state));
          if (view.number == 0) tail_.reset();  // of what was there at the beginning
          const bool is_told = state->problems.empty() || told == state->problems;
          told = state->problems;
          if (state->kernel_log.empty() && is_told) return {};
          if (session.common.json) {
            write_document(session.out, summary_of(loop.guest()), *state,
                           {.parts = part_kernel_log, .one_line = true});
          } else if (session.common.csv) {
            write_csv(session.out, *state, part_kernel_log, std::exchange(has_headings, false));
            if (!is_told) print_warnings(state->problems);
          } else {
            print(session.out, *state);
            if (!is_told) print_warnings(state->problems);
          }
          return {};
        });
  }

  Result<void> parse() {
    VMSIGHT_TRY_VOID(take_time_format());
    if (kernel_only_ && userspace_only_) {
      return usage_error("dmesg: -k and -u exclude each other", "give one of them");
    }
    constexpr unsigned kernel_facility = 1;
    if (kernel_only_) wanted_facilities_ = kernel_facility;
    if (userspace_only_) wanted_facilities_ = ~kernel_facility;
    for (const std::string& word : levels_) {
      const bool and_worse = word.ends_with('+');
      const auto level = parse_level(word.substr(0, word.size() - (and_worse ? 1 : 0)));
      if (!level) {
        return usage_error("dmesg: unknown level '" + word + "'",
                           "levels: emerg alert crit err warn notice info debug");
      }
      for (unsigned i = and_worse ? 0 : *level; i <= *level; ++i) wanted_levels_ |= 1u << i;
    }
    for (const std::string& word : facilities_) {
      const auto facility = parse_facility(word);
      if (!facility) return usage_error("dmesg: unknown facility '" + word + "'");
      wanted_facilities_ |= 1u << *facility;
    }
    for (const std::string* text : {&since_, &until_}) {
      if (!text->empty()) VMSIGHT_TRY_VOID(parse_moment(*text));
    }
    return {};
  }

  static bool in(unsigned set, unsigned bit) {
    return set == 0 || (bit < 32 && (set >> bit & 1) != 0);
  }

  Result<void> filter(State& state) {
    if (!since_.empty() && !from_) {
      VMSIGHT_TRY(from_, guest_time(since_, state.os));
    }
    if (!until_.empty() && !to_) {
      VMSIGHT_TRY(to_, guest_time(until_, state.os));
    }
    std::erase_if(state.kernel_log, [&](const LogRecord& record) {
      return (from_ && record.time_ns < *from_) || (to_ && record.time_ns > *to_) ||
             !in(wanted_levels_, record.level) || !in(wanted_facilities_, record.facility);
    });
    if (tail_ && state.kernel_log.size() > *tail_) {
      state.kernel_log.erase(state.kernel_log.begin(),
                             state.kernel_log.end() - static_cast<std::ptrdiff_t>(*tail_));
    }
    if ((format_.wall_clock || format_.relative || format_.iso) && !state.os.boot_unix_ns) {
      state.problem("os", "the guest's clock could not be read: times count from its boot");
    }
    return {};
  }

  std::vector<std::string> levels_, facilities_;
  std::string since_, until_;
  std::optional<std::uint64_t> from_, to_;  // by the guest's clock, once it was read
  std::optional<std::size_t> tail_;
  unsigned wanted_levels_ = 0, wanted_facilities_ = 0;  // bit sets, 0 = all
  bool follow_ = false, follow_new_ = false, no_time_ = false, json_ = false, ignored_ = false;
  bool kernel_only_ = false, userspace_only_ = false;
  std::string time_format_;
  LogFormat format_;
};

}  // namespace

extern const VerbInfo dmesg_verb{
    .name = "dmesg",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "The kernel log",
    .examples =
        "  vmsight dmesg web1 -T --level warn+\n"
        "  vmsight dmesg web1 --since 10m --follow\n",
    .shows_records = true,
    .make = make_verb<Dmesg>,
};

}  // namespace vmsight
