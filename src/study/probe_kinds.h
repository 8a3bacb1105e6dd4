// The kinds of probes of which `study probes` measures the cost, and the published figures beside them.
#pragma once

#include <span>
#include <string_view>

#include "probe/engine.h"

namespace vmsight {

enum class ProbeKind {
  counting,          // hits are counted where they happen
  event,             // time, vCPU, registers, pid, comm are told
  event_string,      // and a string that an argument points to
  call,              // entry and return, with registers
  rejected_address,  // a trap at an address of no probe
  rejected_vm,       // a trap in a VM that is not ours
  rejected_pid,
  rejected_comm,
  idle,       // armed, and not hit
  unwatched,  // the trap alone, at which nobody looks
};
std::string_view name_of(ProbeKind kind);  // "event+string"
std::string_view what_of(ProbeKind kind);

/// Kinds that an engine must open for in its own way come one after the other.
std::span<const ProbeKind> kinds_of_engine(const EngineAbilities& engine);
/// The probe is hit, and the engine counts that (as foreign, where it knows no probe).
bool counts_hits(ProbeKind kind);

/// The order for a probe of this kind at `site`; `text` finds the string.
ProbeOrder order_for(ProbeKind kind, ProbeId id, const ProbeSite& site, const ProbeFetch& text);
/// The string that the call's first argument points to: of a system call's wrapper, the caller's.
ProbeFetch first_argument_text(const ProbeSite& site, std::int32_t pt_regs_di);

/// What others published, measured on other machines.
struct PublishedProbe {
  std::string_view name;
  double microseconds;
  std::string_view where, when, changes;
};
std::span<const PublishedProbe> published_probes();
/// The same of our engines.
PublishedProbe properties_of_engine(std::string_view engine);

}  // namespace vmsight
