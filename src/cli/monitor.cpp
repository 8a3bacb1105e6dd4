// vmsight monitor VM: the whole state again and again, or only what changed in it.
#include <csignal>
#include <unistd.h>

#include "base/clock.h"
#include "base/ticker.h"
#include "cli/target.h"
#include "render/changes.h"
#include "render/format.h"

namespace vmsight {
namespace {

volatile std::sig_atomic_t stop_signal = 0;

void end_orderly_on(int signal) {
  struct sigaction action {};
  action.sa_handler = [](int number) { stop_signal = number; };
  ::sigaction(signal, &action, nullptr);
}

constexpr std::pair<const char*, unsigned> part_names[] = {
    {"os", part_os},
    {"cpus", part_cpus},
    {"net_devices", part_net_devices},
    {"modules", part_modules},
    {"processes", part_processes},
    {"open_files", part_open_files},
    {"memory_maps", part_memory_maps},
    {"sockets", part_sockets},
    {"mounts", part_mounts},
    {"kernel_log", part_kernel_log},
};
/// What --changes tells if not asked otherwise: files and maps change at every exec.
constexpr unsigned default_changes = part_all & ~(part_open_files | part_memory_maps);

std::vector<std::string> all_part_names() {
  std::vector<std::string> names;
  for (const auto& [name, flag] : part_names) names.emplace_back(name);
  return names;
}

class Monitor : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("-r,--rate", rate_, "views a second (default 1); 0: as many as can be had")
        ->group("Schedule")->type_name("HZ")->check(CLI::Range(0.0, 1e6));
    app.add_option("-n,--count", count_, "end after N views")
        ->group("Schedule")->type_name("N")->check(positive());
    app.add_option("-d,--duration", duration_s_, "end after this time")
        ->group("Schedule")->type_name("SECONDS")->check(positive());
    app.add_flag("-c,--changes", changes_, "only what changed since the view before")
        ->group(filter_group);
    app.add_option("--parts", parts_, "only these keys of the state document, as open_files")
        ->group(filter_group)->type_name("PART,...")->delimiter(',')
        ->check(CLI::IsMember(all_part_names()));
    app.add_flag("-q,--quiet", quiet_, "no account of views and ticks at the end")
        ->group(format_group);
  }

  Result<void> run(Session& session) override {
    end_orderly_on(SIGINT);
    end_orderly_on(SIGTERM);
    options_.parts = wanted_parts();
    session_ = &session;
    if (changes_ && !session.common.json && session.common.headers) print_change_header(session.out);
    VMSIGHT_TRY(target_, open_memory(session.common));
    Ticker ticker(rate_ == 0 ? 0 : static_cast<std::uint64_t>(1e9 / rate_));
    start_ns_ = monotonic_ns();
    Result<void> done;
    while (done && !ended(ticker)) done = follow_kernel(ticker);
    if (!quiet_) print_account(ticker);
    return done;
  }

 private:
  unsigned wanted_parts() const {
    if (parts_.empty()) return changes_ ? default_changes : part_all;
    unsigned parts = 0;
    for (const auto& [name, flag] : part_names) {
      if (std::find(parts_.begin(), parts_.end(), name) != parts_.end()) parts |= flag;
    }
    return parts;
  }

  bool ended(const Ticker& ticker) const {
    const double elapsed_s = static_cast<double>(monotonic_ns() - start_ns_) / 1e9;
    return stop_signal != 0 || session_->out.failed() || (count_ && ticker.ticks() >= *count_) ||
           (duration_s_ && ticker.ticks() > 0 && elapsed_s >= *duration_s_);
  }

  /// Finds the guest's kernel and reads views of it until the guest reboots or the end is reached.
  Result<void> follow_kernel(Ticker& ticker) {
    VMSIGHT_TRY_VOID(find_kernel());
    VMSIGHT_TRY(const auto reader, StateReader::create(*target_.kernel, *target_.memory));
    base_.reset();
    while (!ended(ticker)) {
      const Ticker::Tick tick = ticker.wait([&] { return ended(ticker); });
      if (stop_signal != 0) break;
      auto read = reader->read(options_, *next_);
      if (!read && read.error().code == ErrorCode::vm_gone && alive()) return {};
      VMSIGHT_TRY_VOID(std::move(read));
      show(tick, ticker);
      VMSIGHT_TRY_VOID(session_->out.finish());
    }
    return {};
  }

  /// The VM goes on, so it is the guest that is another one now.
  bool alive() const { return target_.vm && target_.vm->check_alive().has_value(); }

  /// A guest that is rebooting has no kernel for a while.
  Result<void> find_kernel() {
    constexpr useconds_t pause_us = 200'000;
    for (;;) {
      auto found = find_kernel_in(target_, session_->common);
      if (found || views_ == 0 || !alive()) return found;
      if (stop_signal != 0) return {};
      ::usleep(pause_us);
      VMSIGHT_TRY_VOID(target_.memory->refresh());
      VMSIGHT_TRY_VOID(target_.memory->end_view());
    }
  }

  void show(const Ticker::Tick& tick, const Ticker& ticker) {
    Output& out = session_->out;
    const ChangeTime time{.view = views_,
                          .start_ns = next_->view.start_ns,
                          .since_ns = monotonic_ns() - start_ns_};
    ++views_;
    read_ns_ += next_->view.duration_ns;
    if (changes_) return show_changes(time);
    if (session_->common.json) {
      write_document(out, target_.summary, *next_,
                     {.parts = options_.parts,
                      .one_line = true,
                      .tick = TickInfo{tick.number, tick.late_ns, ticker.late(), ticker.missed()}});
      return;
    }
    out.print("{:>10.3f}  {} processes, {} files, {} maps, {} sockets, {} modules; {} pages in {}{}\n",
              static_cast<double>(time.since_ns) / 1e9, next_->processes.size(),
              next_->open_files.size(), next_->memory_maps.size(), next_->sockets.size(),
              next_->modules.size(), next_->view.pages, duration(next_->view.duration_ns),
              next_->problems.empty() ? "" : fmt::format(", {} problems", next_->problems.size()));
  }

  void show_changes(const ChangeTime& time) {
    Output& out = session_->out;
    if (!base_) {
      if (views_ > 1) {
        const std::string& banner = target_.kernel->banner();
        session_->common.json ? write_reboot(out, banner, time) : print_reboot(out, banner, time);
      }
    } else if (!is_comparable(*base_, *next_, options_.parts)) {
      ++unsure_;
      // The next view is compared with the last whole one, unless there seems to be none to come.
      if (++unsure_in_row_ < max_unsure) return;
    } else {
      const Changes changes = compare_states(*base_, *next_, options_.parts);
      session_->common.json ? write_changes(out, changes, time) : print_changes(out, changes, time);
    }
    unsure_in_row_ = 0;
    if (!base_) base_ = std::make_unique<State>();
    std::swap(base_, next_);
  }

  void print_account(const Ticker& ticker) const {
    if (views_ == 0) return;
    fmt::print(stderr, "vmsight: {} views, {} each; {} late, {} missed ticks", views_,
               duration(read_ns_ / views_), ticker.late(), ticker.missed());
    if (unsure_ != 0) fmt::print(stderr, "; {} views were torn and not compared", unsure_);
    fmt::print(stderr, "\n");
  }

  /// A guest in which something stays unreadable becomes the measure for the views to come.
  static constexpr unsigned max_unsure = 50;

  double rate_ = 1;
  std::optional<std::uint64_t> count_;
  std::optional<double> duration_s_;
  std::vector<std::string> parts_;
  bool changes_ = false, quiet_ = false;

  Session* session_ = nullptr;
  Target target_;
  StateOptions options_;
  std::unique_ptr<State> next_ = std::make_unique<State>(), base_;
  std::uint64_t start_ns_ = 0, views_ = 0, read_ns_ = 0, unsure_ = 0;
  unsigned unsure_in_row_ = 0;
};

}  // namespace

extern const VerbInfo monitor_verb{
    .name = "monitor",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "The state again and again at a given rate, or what changes in it",
    .examples = "  vmsight monitor web1 --changes\n"
                "  vmsight monitor web1 --rate 10 --json --duration 60 > states.jsonl\n",
    .make = make_verb<Monitor>,
};

}  // namespace vmsight
