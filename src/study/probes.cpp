#include "study/probes.h"

#include <fmt/format.h>
#include <algorithm>

#include "probe/engine.h"
#include "probe/kernel_sites.h"
#include "state/members.h"
#include "study/call_command.h"
#include "study/measure.h"
#include "study/raw_exit.h"

namespace vmsight {
namespace {

constexpr unsigned raw_exits = 20'000;        // in a round
constexpr std::uint64_t first_calls = 1'000;  // of the run that only looks whether hits come
constexpr std::uint64_t fits_unread =
    20'000;  // events that an engine keeps for us: not read meanwhile
constexpr unsigned most_reads = 1000;
constexpr std::chrono::milliseconds drain_interval{5}, rest{1000}, poll_patience{1};

/// How the engine is opened for a kind.
EngineSetting::Blind blindness_of(ProbeKind kind) {
  if (kind == ProbeKind::rejected_vm) return EngineSetting::Blind::to_this_vm;
  if (kind == ProbeKind::unwatched) return EngineSetting::Blind::to_everything;
  if (kind == ProbeKind::rejected_address) return EngineSetting::Blind::to_its_sites;
  return EngineSetting::Blind::not_at_all;
}

/// One run of the command, with a probe or without.
struct RunFigures {
  double ns = 0;
  bool told_clock = false;
  std::uint64_t hits = 0, told = 0, lost = 0, texts = 0;
};

class ProbesBench {
 public:
  ProbesBench(const VmInfo& info, const ProbesOptions& options)
      : info_(info), options_(options), command_(options.call) {}

  Result<ProbesStudy> run() {
    VMSIGHT_TRY(watcher_, open_watcher(info_, "auto", options_.cache_dir));
    VMSIGHT_TRY(site_, find_site(options_.site));
    VMSIGHT_TRY(idle_site_, find_site(options_.idle_site));
    Members members(*watcher_.guest.kernel);
    text_ = first_argument_text(site_, static_cast<std::int32_t>(members.offset("pt_regs", "di")));
    VMSIGHT_TRY_VOID(members.check());
    open_raw();
    for (const std::string_view engine : wanted_engines()) VMSIGHT_TRY_VOID(measure_engine(engine));
    study_.call_ns = spread_of(call_ns_);
    study_.raw_ns = spread_of(raw_ns_);
    return std::move(study_);
  }

 private:
  Result<ProbeSite> find_site(const std::string& text) {
    VMSIGHT_TRY(const Site wanted, parse_site(text));
    if (wanted.user || wanted.at_return) {
      return Error{.code = ErrorCode::usage,
                   .message = fmt::format("study probes: {}: not a function of the kernel", text),
                   .hint = "write kprobe:FUNCTION"};
    }
    VMSIGHT_TRY(auto found, find_kernel_sites(*watcher_.guest.kernel, wanted));
    if (found.size() != 1) {
      return Error{
          .code = ErrorCode::usage,
          .message = fmt::format("study probes: {} stands for {} functions", text, found.size()),
          .hint = "name one that does next to nothing"};
    }
    return std::move(found.front());
  }

  void open_raw() {
    if (info_.accelerator == Accelerator::tcg) {
      study_.raw_problem = "the guest is emulated (TCG): KVM has no part in it";
      return;
    }
    auto raw = RawExit::open();
    if (raw)
      raw_ = *std::move(raw);
    else
      study_.raw_problem = raw.error().message;
  }

  std::vector<std::string_view> wanted_engines() const {
    if (options_.engines.empty()) return engine_names();
    return {options_.engines.begin(), options_.engines.end()};
  }

  bool stops_guest() const { return engine_->abilities().stops_guest; }

  std::uint64_t calls_of_run() const {
    return stops_guest() ? std::min(options_.calls, options_.slow_calls) : options_.calls;
  }

  /// False if it cannot be used here, or not for this kind: a row says why.
  bool open_for(std::string_view engine, ProbeKind kind) {
    auto opened = open_engine(setting(blindness_of(kind)), engine);
    if (opened) {
      engine_ = *std::move(opened);
      return true;
    }
    options_.progress(fmt::format("{}: not here: {}", engine, opened.error().message));
    study_.rows.push_back({.engine = std::string(engine),
                           .kind = kind,
                           .error = opened.error().message,
                           .hint = opened.error().hint});
    return false;
  }

  Result<void> measure_engine(std::string_view engine) {
    if (!open_for(engine, ProbeKind::event)) return {};  // which every engine has
    const auto kinds = kinds_of_engine(engine_->abilities());
    for (std::size_t first = 0; first < kinds.size();) {
      std::size_t end = first;
      while (end < kinds.size() && blindness_of(kinds[end]) == blindness_of(kinds[first])) ++end;
      if (!engine_ && !open_for(engine, kinds[first])) return {};
      auto done = measure_kinds(engine, kinds.subspan(first, end - first));
      engine_.reset();
      if (!done) return done;
      first = end;
    }
    return {};
  }

  Result<void> measure_kinds(std::string_view engine, std::span<const ProbeKind> kinds) {
    const std::uint64_t calls = calls_of_run();
    if (counts_hits(kinds.front())) {
      options_.progress(fmt::format("{}: whether the calls come", engine));
      const std::uint64_t some = std::min(calls, first_calls);
      VMSIGHT_TRY(const RunFigures first, run_with(kinds.front(), some));
      VMSIGHT_TRY_VOID(check_hits(options_.site, some, first.hits));
    }
    const std::size_t start = study_.rows.size();
    for (const ProbeKind kind : kinds)
      study_.rows.push_back({.engine = std::string(engine), .kind = kind});
    std::vector<std::vector<double>> extras(kinds.size());
    VMSIGHT_TRY(RunFigures before, run_without(calls));
    for (unsigned round = 0; round < options_.rounds; ++round) {
      VMSIGHT_TRY_VOID(measure_raw());
      for (std::size_t i = 0; i < kinds.size(); ++i) {
        ProbeRow& row = study_.rows[start + i];
        if (!row.error.empty()) continue;
        VMSIGHT_TRY(const RunFigures probed, run_with(kinds[i], calls));
        VMSIGHT_TRY(const RunFigures after, run_without(calls));
        VMSIGHT_TRY_VOID(add(row, extras[i], calls, before, probed, after));
        options_.progress(fmt::format(
            "{} {}: round {} of {}: {}", engine, name_of(row.kind), round + 1, options_.rounds,
            row.error.empty() ? fmt::format("+{:.3g} us", extras[i].back() / 1e3) : row.error));
        before = after;
      }
    }
    for (std::size_t i = 0; i < kinds.size(); ++i)
      study_.rows[start + i].extra_ns = spread_of(extras[i]);
    return {};
  }

  Result<void> add(ProbeRow& row, std::vector<double>& extras, std::uint64_t calls,
                   const RunFigures& before, const RunFigures& probed, const RunFigures& after) {
    if (counts_hits(row.kind)) VMSIGHT_TRY_VOID(check_hits(options_.site, calls, probed.hits));
    if (row.kind == ProbeKind::event_string &&
        probed.texts < probed.told - probed.told / 50) {  // others may call it too
      row.error = "the first argument of the calls is no string";
      row.hint =
          "make them with one, for example: perl -e 'syscall(110, @ARGV) for 1..$ENV{CALLS}' text";
      return {};
    }
    row.told_clock = probed.told_clock;
    row.calls += calls;
    row.hits += probed.hits;
    row.told += probed.told;
    row.lost += probed.lost;
    extras.push_back(
        extra_of(probed.ns, before.ns, after.ns, counts_hits(row.kind) ? probed.hits : calls));
    return {};
  }

  Result<void> measure_raw() {
    if (!raw_) return {};
    VMSIGHT_TRY(const std::uint64_t ns, raw_->run(raw_exits));
    raw_ns_.push_back(static_cast<double>(ns) / raw_exits);
    return {};
  }

  Result<RunFigures> run_without(std::uint64_t calls) {
    VMSIGHT_TRY(const RunFigures figures, run_command(calls, ProbeKind::idle));
    if (!stops_guest()) call_ns_.push_back(figures.ns / static_cast<double>(calls));
    return figures;
  }

  Result<RunFigures> run_with(ProbeKind kind, std::uint64_t calls) {
    const ProbeId id = ++last_id_;
    const ProbeOrder order =
        order_for(kind, id, kind == ProbeKind::idle ? idle_site_ : site_, text_);
    told_ = texts_ = 0;
    const std::uint64_t strangers = engine_->foreign();
    VMSIGHT_TRY_VOID(engine_->arm({&order, 1}));
    VMSIGHT_TRY(RunFigures figures, run_command(calls, kind));
    VMSIGHT_TRY_VOID(read_rest());
    VMSIGHT_TRY(const ProbeCounts counts, engine_->counts(id));
    VMSIGHT_TRY_VOID(engine_->disarm({&id, 1}));
    figures.hits =
        kind == ProbeKind::rejected_address ? engine_->foreign() - strangers : counts.hits;
    figures.lost = counts.lost;
    figures.told = told_;
    figures.texts = texts_;
    return figures;
  }

  /// Events are read meanwhile only if they would not all fit: reading takes the host's CPU, not the guest's.
  Result<RunFigures> run_command(std::uint64_t calls, ProbeKind kind) {
    const bool stops = stops_guest();
    const bool reads =
        kind == ProbeKind::event || kind == ProbeKind::event_string || kind == ProbeKind::call;
    const bool drains = reads && calls > fits_unread;
    CallCommand::Meanwhile meanwhile{.every = stops    ? std::chrono::milliseconds(0)
                                              : drains ? drain_interval
                                                       : rest};
    meanwhile.run = [&]() -> Result<void> {
      if (!stops && !drains) return watcher_.guest.vm->check_alive();
      VMSIGHT_TRY(const std::size_t told,
                  poll(stops ? poll_patience : std::chrono::milliseconds(0)));
      static_cast<void>(told);
      return {};
    };
    VMSIGHT_TRY(const CallRun ran, command_.run(calls, options_.seconds, meanwhile));
    // The clock of a guest that is stopped at each hit stands still meanwhile.
    const bool told_clock = !stops && ran.told_ns.has_value();
    return RunFigures{.ns = static_cast<double>(told_clock ? *ran.told_ns : ran.elapsed_ns),
                      .told_clock = told_clock};
  }

  /// Events that wait; the guest may go on to make more.
  Result<void> read_rest() {
    if (stops_guest()) return {};  // nothing waits: the guest does
    for (unsigned i = 0; i < most_reads; ++i) {
      VMSIGHT_TRY(const std::size_t some, poll(std::chrono::milliseconds(0)));
      if (some == 0) break;
    }
    return {};
  }

  Result<std::size_t> poll(std::chrono::milliseconds patience) {
    return engine_->poll(patience, [&](const Hit& hit) {
      ++told_;
      if (!hit.fetched.empty() && hit.fetched[0].ok && !hit.fetched[0].bytes.empty()) ++texts_;
    });
  }

  EngineSetting setting(EngineSetting::Blind blind) {
    return {.vm = *watcher_.guest.vm,
            .kernel = *watcher_.guest.kernel,
            .memory = *watcher_.guest.memory,
            .blind = blind,
            .ends_storms = false};
  }

  const VmInfo& info_;
  const ProbesOptions& options_;
  const CallCommand command_;
  Watcher watcher_;
  ProbeSite site_, idle_site_;
  ProbeFetch text_;
  std::optional<RawExit> raw_;
  ProbesStudy study_;
  std::vector<double> call_ns_, raw_ns_;
  std::uint64_t told_ = 0, texts_ = 0;
  ProbeId last_id_ = 0;
  std::unique_ptr<ProbeEngine> engine_;  // the first to go
};

}  // namespace

std::optional<double> ProbesStudy::times_raw(const ProbeRow& row) const {
  if (raw_ns.count == 0 || row.extra_ns.count == 0) return std::nullopt;
  return row.extra_ns.median / raw_ns.median;
}

Result<ProbesStudy> study_probes(const VmInfo& info, const ProbesOptions& options) {
  return ProbesBench(info, options).run();
}

Result<void> check_hits(std::string_view site, std::uint64_t calls, std::uint64_t hits) {
  if (hits == 0) {
    return Error{
        .code = ErrorCode::not_found,
        .message = fmt::format("study probes: {} was not hit at all", site),
        .hint =
            "--call CMD must make the guest call it $CALLS times, and end when that is done; "
            "--site names another function"};
  }
  if (hits < calls) {
    return Error{
        .code = ErrorCode::bad_data,
        .message = fmt::format("study probes: {} was hit {} times, not {}", site, hits, calls),
        .hint =
            "--call CMD finds the number of calls in $CALLS, and must wait until they are made"};
  }
  const std::uint64_t others = calls / 50 + 20;  // what else may call it
  if (hits > calls + others) {
    return Error{
        .code = ErrorCode::bad_data,
        .message = fmt::format("study probes: {} was hit {} times, not {}", site, hits, calls),
        .hint = "others call it as well: choose a --site that nobody else calls"};
  }
  return {};
}

double extra_of(double probed_ns, double before_ns, double after_ns, std::uint64_t hits) {
  if (hits == 0) return 0;
  return (probed_ns - (before_ns + after_ns) / 2) / static_cast<double>(hits);
}

}  // namespace vmsight
