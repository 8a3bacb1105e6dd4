// vmsight monitor VM: the whole state again and again, or only what changed in it.
#include "cli/state_loop.h"
#include "render/changes_text.h"
#include "render/format.h"
#include "state/records.h"

namespace vmsight {
namespace {

/// What --changes tells if not asked otherwise: files and maps change at every exec.
constexpr unsigned default_changes = part_all & ~(part_open_files | part_memory_maps);

std::vector<std::string> all_part_names() {
  std::vector<std::string> names;
  for (const auto& [name, part] : document_parts()) names.emplace_back(name);
  return names;
}

class Monitor : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("-r,--rate", options_.rate,
                   "how many times a second to read the guest (default 1); 0: as often as possible")
        ->group("Schedule")
        ->type_name("HZ")
        ->check(CLI::Range(0.0, 1e6));
    declare_end(app, "views", options_.count, options_.duration_s);
    app.add_flag("-c,--changes", changes_, "only what changed since the view before")
        ->group(filter_group);
    app.add_option("--parts", parts_, "only these keys of the state document, as open_files")
        ->group(filter_group)
        ->type_name("PART,...")
        ->delimiter(',')
        ->check(CLI::IsMember(all_part_names()));
    app.add_flag("-q,--quiet", quiet_,
                 "do not end with a line that counts the readings, and those that were late")
        ->group(format_group);
  }

  Result<void> run(Session& session) override {
    options_.state.parts = wanted_parts();
    session_ = &session;
    if (changes_ && !session.common.json && session.common.headers)
      print_change_header(session.out);
    StateLoop loop(session, options_);
    auto done = loop.run([&](std::unique_ptr<State>& state, const StateLoop::View& view) {
      show(state, view, loop);
      return Result<void>();
    });
    if (!quiet_) print_account(loop);
    return done;
  }

 private:
  unsigned wanted_parts() const {
    if (parts_.empty()) return changes_ ? default_changes : part_all;
    unsigned parts = 0;
    for (const auto& [name, part] : document_parts()) {
      if (std::find(parts_.begin(), parts_.end(), name) != parts_.end()) parts |= part;
    }
    return parts;
  }

  void show(std::unique_ptr<State>& state, const StateLoop::View& view, const StateLoop& loop) {
    Output& out = session_->out;
    if (changes_) return show_changes(state, view, loop.guest().kernel->banner());
    if (session_->common.json) {
      const Ticker& ticker = loop.ticker();
      write_document(
          out, summary_of(loop.guest()), *state,
          {.parts = options_.state.parts,
           .one_line = true,
           .tick = TickInfo{view.tick.number, view.tick.late_ns, ticker.late(), ticker.missed()}});
      return;
    }
    out.print(
        "{:>10.3f}  {} processes, {} files, {} maps, {} sockets, {} modules; {} pages in {}{}\n",
        static_cast<double>(view.since_ns) / 1e9, state->processes.size(), state->open_files.size(),
        state->memory_maps.size(), state->sockets.size(), state->modules.size(), state->view.pages,
        duration(state->view.duration_ns),
        state->problems.empty() ? "" : fmt::format(", {} problems", state->problems.size()));
  }

  void show_changes(std::unique_ptr<State>& state, const StateLoop::View& view,
                    const std::string& banner) {
    Output& out = session_->out;
    const ChangeTime time{
        .view = view.number, .start_ns = state->view.start_ns, .since_ns = view.since_ns};
    if (view.is_first_of_kernel) base_.reset();
    if (!base_) {
      if (view.number != 0) {
        session_->common.json ? write_reboot(out, banner, time) : print_reboot(out, banner, time);
      }
      base_ = std::make_unique<State>();
    } else if (!is_comparable(*base_, *state, options_.state.parts)) {
      ++unsure_;
      // The next view is compared with the last whole one, unless there seems to be none to come.
      if (++unsure_in_row_ < max_unsure) return;
    } else {
      const Changes changes = compare_states(*base_, *state, options_.state.parts);
      session_->common.json ? write_changes(out, changes, time) : print_changes(out, changes, time);
    }
    unsure_in_row_ = 0;
    std::swap(base_, state);
  }

  void print_account(const StateLoop& loop) const {
    if (loop.views() == 0) return;
    fmt::print(stderr, "vmsight: {} views, {} each; {} late, {} missed ticks", loop.views(),
               duration(loop.read_ns() / loop.views()), loop.ticker().late(),
               loop.ticker().missed());
    if (unsure_ != 0) fmt::print(stderr, "; {} views were torn and not compared", unsure_);
    fmt::print(stderr, "\n");
  }

  /// A guest in which something stays unreadable becomes the measure for the views to come.
  static constexpr unsigned max_unsure = 50;

  StateLoopOptions options_;
  std::vector<std::string> parts_;
  bool changes_ = false, quiet_ = false;

  Session* session_ = nullptr;
  std::unique_ptr<State> base_;
  std::uint64_t unsure_ = 0;
  unsigned unsure_in_row_ = 0;
};

}  // namespace

extern const VerbInfo monitor_verb{
    .name = "monitor",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "The state again and again at a given rate, or what changes in it",
    .examples =
        "  vmsight monitor web1 --changes\n"
        "  vmsight monitor web1 --rate 10 --json --duration 60 > states.jsonl\n",
    .make = make_verb<Monitor>,
};

}  // namespace vmsight
