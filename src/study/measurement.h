// What was measured of one technique at one rate, and how it is written down.
#pragma once

#include <optional>
#include <string>

#include "render/json.h"
#include "study/statistics.h"

namespace vmsight {

struct Measurement {
  std::string technique;
  double wanted_rate = 0;   // views a second; 0: as many as can be
  double cpu = 0;           // held to so many percent of a core; 0: not held
  std::string error, hint;  // why there are no figures, or ""

  double rate = 0;  // achieved; of several rounds the best
  Spread round_rates;
  bool reached = false;  // at least 95% of what was wanted
  std::uint64_t views = 0, missed = 0, problems = 0;
  std::size_t processes = 0;
  Spread view_ns, pause_ns, bytes, pages;

  /// CPU time of the host a view, in milliseconds: ours and our children's, and what QEMU's threads
  /// other than vCPUs used above what they use anyway. nullopt: not to be told from the guest's.
  double own_cpu_ms = 0;
  std::optional<double> qemu_cpu_ms;
  /// What the vCPU threads used more a view than without us: work of an agent in the guest, page
  /// faults of copy-on-write. Means something on an idle guest only.
  std::optional<double> guest_cpu_ms;
  double cpu_percent = 0;  // of one core of the host, ours and QEMU's, at this rate

  std::uint64_t own_anonymous_kib = 0;  // peak
  std::uint64_t qemu_growth_kib = 0;    // peak, above what it was before

  double cpu_percent_per_hz() const { return rate > 0 ? cpu_percent / rate : 0; }
};

Json to_json(const Spread& spread);
Json to_json(const Measurement& measurement);
/// bad_data if a member is missing or of another kind.
Result<Measurement> measurement_from(const Json& json);

}  // namespace vmsight
