// What a hit of a probe costs the guest: the microbenchmark of the hprobes paper on one VM, for each
// engine and kind of probe, beside the exit of the host's own KVM measured in between.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "study/options.h"
#include "study/probe_kinds.h"
#include "study/statistics.h"
#include "vmsight/vm.h"

namespace vmsight {

struct ProbesOptions {
  std::string call;  // shell command: the guest makes $CALLS calls of `site`
  std::string site = StudyOptions{}.site;
  std::string idle_site = "kprobe:__x64_sys_sethostname";  // nobody calls it meanwhile
  std::vector<std::string> engines;                        // empty: all that can be used
  std::uint64_t calls = StudyOptions{}.calls;              // a run
  std::uint64_t slow_calls = StudyOptions{}.slow_calls;
  unsigned rounds = StudyOptions{}.rounds;
  double seconds = StudyOptions{}.timeout;  // at most, of a run
  std::string cache_dir;
  std::function<void(std::string_view)> progress;
};

/// One kind of probe by one engine. Runs without the probe come before and after each run with it;
/// the difference is divided by the hits.
struct ProbeRow {
  std::string engine;
  ProbeKind kind = ProbeKind::counting;
  std::string error, hint;  // why there are no figures, or ""
  std::uint64_t calls = 0;  // of all runs
  std::uint64_t hits = 0, told = 0, lost = 0;
  bool told_clock = false;  // timed by the command itself; else by the host's clock around it
  Spread extra_ns;          // of a hit, by the rounds
};

struct ProbesStudy {
  Spread call_ns;  // a call without a probe; none if only slow engines were asked for
  Spread raw_ns;   // an exit to user space and back; none if `raw_problem`
  std::string raw_problem;
  std::vector<ProbeRow> rows;

  /// How many raw exits a hit costs.
  std::optional<double> times_raw(const ProbeRow& row) const;
};

/// Fails if the site is unknown, the command fails, or the hits do not fit the calls that it was told to
/// have made; an engine that cannot be used here is a row that says why.
Result<ProbesStudy> study_probes(const VmInfo& info, const ProbesOptions& options);

/// usage or not_found if so many hits cannot come of so many calls, with what may be wrong.
Result<void> check_hits(std::string_view site, std::uint64_t calls, std::uint64_t hits);
/// What a hit costs more, from a run with the probe and those without it before and after.
double extra_of(double probed_ns, double before_ns, double after_ns, std::uint64_t hits);

}  // namespace vmsight
