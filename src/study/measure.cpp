#include "study/measure.h"

#include <algorithm>
#include <ctime>
#include <optional>

#include "base/isolated.h"
#include "halt/vcpu_threads.h"
#include "study/allotment.h"
#include "study/host_usage.h"

namespace vmsight {
namespace {

constexpr unsigned warm_up_views = 2;
constexpr double reached_share = 0.95;
constexpr double fewest_views = 3;        // a low rate is measured for so many ticks
constexpr double baseline_seconds = 0.5;  // QEMU without us
constexpr double attach_seconds = 120;    // the slowest interface reads a page in milliseconds
constexpr double ns_per_ms = 1e6;

/// CPU time that QEMU uses a second when nobody looks on, as shares of a core.
struct Baseline {
  double vcpus = 0, others = 0;
};

Result<Baseline> baseline_of(const CpuMeter& meter) {
  VMSIGHT_TRY(const CpuTimes before, meter.read());
  const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(baseline_seconds * 1e9)};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  VMSIGHT_TRY(const CpuTimes after, meter.read());
  const auto vcpus = static_cast<double>(after.vcpu_ns - before.vcpu_ns);
  const auto all = static_cast<double>(after.qemu_ns - before.qemu_ns);
  return Baseline{.vcpus = vcpus / (baseline_seconds * 1e9),
                  .others = std::max(0.0, all - vcpus) / (baseline_seconds * 1e9)};
}

/// vCPU threads, or none if they cannot be told from QEMU's others.
std::vector<pid_t> known_vcpus(const VmInfo& info) {
  auto threads = find_vcpu_threads(info);
  if (!threads || threads->others.empty()) return {};
  return std::move(threads->tids);
}

void charge(const CpuTimes& before, const CpuTimes& after, const Baseline& idle, bool knows_vcpus,
            const LoopOutcome& outcome, Measurement& into) {
  const auto elapsed = static_cast<double>(outcome.elapsed_ns);
  const auto views = static_cast<double>(std::max<std::uint64_t>(outcome.views, 1));
  const auto own = static_cast<double>(after.own_ns - before.own_ns);
  const auto vcpus = static_cast<double>(after.vcpu_ns - before.vcpu_ns);
  const double others = static_cast<double>(after.qemu_ns - before.qemu_ns) - vcpus;
  into.own_cpu_ms = own / views / ns_per_ms;
  double host = own;
  if (knows_vcpus) {
    const double more = std::max(0.0, others - idle.others * elapsed);
    into.qemu_cpu_ms = more / views / ns_per_ms;
    into.guest_cpu_ms = std::max(0.0, vcpus - idle.vcpus * elapsed) / views / ns_per_ms;
    host += more;
  }
  into.cpu_percent = 100 * host / elapsed;
}

void describe(const LoopOutcome& outcome, Measurement& into) {
  into.views = outcome.views;
  into.missed = outcome.missed;
  into.problems = outcome.problems;
  into.processes = outcome.processes;
  into.view_ns = outcome.view_ns.spread();
  into.pause_ns = outcome.pause_ns.spread();
  into.bytes = outcome.bytes.spread();
  into.pages = outcome.pages.spread();
}

double round_seconds(double rate, double seconds) {
  return rate > 0 ? std::max(seconds, fewest_views / rate) : seconds;
}

/// The rounds; `into` gets the best one and the spread of all.
Result<void> measure_rounds(Watcher& watcher, const CpuMeter& meter, const Baseline& idle,
                            const MeasureOptions& options, Measurement& into) {
  const unsigned rounds = into.wanted_rate > 0 ? 1 : std::max(options.rounds, 1u);
  std::vector<double> rates;
  for (unsigned round = 0; round < rounds; ++round) {
    VMSIGHT_TRY(const CpuTimes before, meter.read());
    VMSIGHT_TRY(
        const LoopOutcome outcome,
        run_loop(*watcher.reader, {.rate = into.wanted_rate,
                                   .seconds = round_seconds(into.wanted_rate, options.seconds)}));
    VMSIGHT_TRY(const CpuTimes after, meter.read());
    const double rate = outcome.rate();
    rates.push_back(rate);
    if (rate <= into.rate) continue;
    into.rate = rate;
    describe(outcome, into);
    charge(before, after, idle, meter.knows_vcpus(), outcome, into);
  }
  into.round_rates = spread_of(rates);
  into.reached = into.wanted_rate == 0 || into.rate >= reached_share * into.wanted_rate;
  return {};
}

Result<void> measure_into(const VmInfo& info, const MeasureOptions& options, Measurement& into) {
  const CpuMeter meter(info.pid, known_vcpus(info));
  VMSIGHT_TRY(const Baseline idle, baseline_of(meter));
  const MemoryMeter memory(info.pid);
  VMSIGHT_TRY(Watcher watcher, open_watcher(info, into.technique, options.cache_dir));
  VMSIGHT_TRY_VOID(warm_up(*watcher.reader));
  VMSIGHT_TRY_VOID(measure_rounds(watcher, meter, idle, options, into));
  into.own_anonymous_kib = memory.own_anonymous_peak_kib();
  into.qemu_growth_kib = memory.qemu_growth_kib();
  return {};
}

Measurement failed(std::string_view technique, const Pace& pace, const Error& error) {
  return {.technique = std::string(technique),
          .wanted_rate = pace.rate,
          .cpu = pace.cpu,
          .error = error.message.empty() ? "failed" : error.message,
          .hint = error.hint};
}

}  // namespace

Result<Watcher> open_watcher(const VmInfo& info, std::string_view technique,
                             const std::string& cache_dir) {
  Watcher watcher;
  VMSIGHT_TRY(watcher.guest, attach(std::to_string(info.pid), {.technique = std::string(technique),
                                                               .wish = {},
                                                               .kernel = {},
                                                               .cache_directory = cache_dir,
                                                               .progress = {},
                                                               .recovered = {}}));
  VMSIGHT_TRY(watcher.reader, StateReader::create(*watcher.guest.kernel, *watcher.guest.memory));
  return watcher;
}

Result<void> warm_up(StateReader& reader) {
  State state;
  for (unsigned i = 0; i < warm_up_views; ++i) VMSIGHT_TRY_VOID(reader.read({}, state));
  return {};
}

Measurement measure(const VmInfo& info, std::string_view technique, const Pace& pace,
                    const MeasureOptions& options) {
  Measurement measured{
      .technique = std::string(technique), .wanted_rate = pace.rate, .cpu = pace.cpu};
  if (auto done = measure_into(info, options, measured); !done) {
    return failed(technique, pace, done.error());
  }
  return measured;
}

Measurement measure_isolated(const VmInfo& info, std::string_view technique, const Pace& pace,
                             const MeasureOptions& options) {
  const double share = pace.cpu > 0 ? pace.cpu / 100 : 1;
  const double limit = attach_seconds / share + 3 * std::max(options.rounds, 1u) *
                                                    round_seconds(pace.rate, options.seconds) /
                                                    share;
  std::optional<CpuAllotment> allotment;
  if (pace.cpu > 0) {
    auto made = CpuAllotment::make(pace.cpu);
    if (!made) return failed(technique, pace, made.error());
    allotment = *std::move(made);
  }
  const auto work = [&] {
    if (allotment) {
      if (auto entered = allotment->enter(); !entered)
        return dump(to_json(failed(technique, pace, entered.error())));
    }
    return dump(to_json(measure(info, technique, pace, options)));
  };
  const auto text = run_isolated(work, {.what = "measure", .seconds = limit});
  if (!text) return failed(technique, pace, text.error());
  auto measured = measurement_from(Json::parse(*text, nullptr, false));
  return measured ? *std::move(measured) : failed(technique, pace, measured.error());
}

}  // namespace vmsight
