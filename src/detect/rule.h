// Rules of detectors: what is watched, what must hold for an alarm, and what the alarm says.
//
// Rules are written in YAML, shaped like Falco's, and read by rule_file.h. Nothing here has been
// compared with a guest: texts of sites, names of parts and of fields may mean nothing in it.
// compiled_rule.h compiles the condition and the output of a rule for the fields that a detector has.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "vmsight/result.h"

namespace vmsight::detect {

/// Where something stands in a file of rules. Lines count from 1.
struct Place {
  std::string file;
  unsigned line = 0;
  friend bool operator==(const Place&, const Place&) = default;
};
std::string to_string(const Place& place);  // "FILE:LINE"

struct PlacedText {
  std::string text;
  Place place;
  friend bool operator==(const PlacedText&, const PlacedText&) = default;
};

/// Falco's priorities, which are syslog's: the numbers are those of syslog(3).
enum class Priority : std::uint8_t {
  emergency,
  alert,
  critical,
  error,
  warning,
  notice,
  informational,
  debug,
};
std::string_view to_string(Priority priority);  // "Warning", as in Falco's JSON
/// In any case; "info" is informational, too.
std::optional<Priority> parse_priority(std::string_view text);

// ---- what is watched -----------------------------------------------------------------------

/// Something that must come again and again: an alarm if it does not.
struct Heartbeat {
  enum class Per : std::uint8_t { vm, process };
  std::vector<std::string> probes;  // texts of sites
  std::uint64_t expect_ns = 0;      // the longest time from one hit to the next
  std::uint64_t grace_ns = 0;       // and this much more for the first, after the start
  Per per = Per::process;           // each process for which the rule's condition holds, by itself
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};

/// Something that must move on while it uses a processor: an alarm if it does not.
struct Progress {
  enum class Of : std::uint8_t { process, kernel_thread, cpu, task, runqueue, guest };
  Of of = Of::process;
  std::optional<unsigned> cpu_percent;  // of one processor: what uses less is not looked at
  std::uint64_t for_ns = 0;
  friend bool operator==(const Progress&, const Progress&) = default;
};

/// What a task enters and must leave: an alarm if it does not, or goes round in it too often.
struct Loop {
  std::string entry, exit;   // texts of sites
  std::string body;          // the same; "": turns are not counted
  std::uint64_t for_ns = 0;  // of the guest's running time; 0: no bound
  std::uint64_t turns = 0;   // hits of the body; 0: no bound
  friend bool operator==(const Loop&, const Loop&) = default;
};

/// A value at a hit: a name, and a C expression over the function's arguments.
struct RuleField {
  std::string name;
  PlacedText expression;
  friend bool operator==(const RuleField&, const RuleField&) = default;
};

/// Hits of probes.
struct ProbeRule {
  std::vector<std::string> probes;  // texts of sites: of several those that the guest has
  std::vector<RuleField> fields;    // each may name those before
  bool returns =
      false;  // the hit is matched when the function returns, with its result and duration
  friend bool operator==(const ProbeRule&, const ProbeRule&) = default;
};

/// Records of the state.
struct StateRule {
  enum class When : std::uint8_t { present, appeared, gone, changed };
  std::string of;  // the part's key in the JSON document: "processes", "sockets"
  When when = When::present;
  std::uint64_t every_ns = 1'000'000'000;
  std::uint64_t for_ns = 0;  // of the guest's running time: how long one must be `present`
  friend bool operator==(const StateRule&, const StateRule&) = default;
};

/// What of the kernel must not change.
struct Integrity {
  std::vector<std::string> checks;  // names; "all" stands for all there are
  std::uint64_t every_ns = 10'000'000'000;
  friend bool operator==(const Integrity&, const Integrity&) = default;
};

using RuleKind = std::variant<Heartbeat, Progress, ProbeRule, StateRule, Integrity, Loop>;
/// The key in the file: "heartbeat", "progress", "probe", "state", "integrity", "loop".
std::string_view kind_name(const RuleKind& kind);
std::span<const std::string_view> rule_kinds();
/// Texts of the sites that a rule probes; none of other kinds.
std::vector<std::string> probe_sites(const RuleKind& kind);
std::string_view to_string(Heartbeat::Per per);
std::string_view to_string(Progress::Of of);  // "kernel-thread"
std::string_view to_string(StateRule::When when);

// ---- what an alarm needs, and does ---------------------------------------------------------

/// When no alarm is raised though the condition holds: any row of `values` of which each comparison
/// holds, `fields[i] comps[i] row[i]`.
struct Exception {
  /// What is compared with: one text or, for `in` and its kin, a list.
  struct Operand {
    std::vector<std::string> items;
    bool is_list = false;
    friend bool operator==(const Operand&, const Operand&) = default;
  };
  std::string name;
  std::vector<std::string> fields, comps;    // of equal length
  std::vector<std::vector<Operand>> values;  // rows of that length
  Place place;
  friend bool operator==(const Exception&, const Exception&) = default;
};

/// One alarm for all that have equal values of these fields within a time; the rest is summed up.
struct AlarmLimit {
  std::vector<std::string> key;  // fields; none: all alarms of the rule
  std::uint64_t every_ns = 0;
  friend bool operator==(const AlarmLimit&, const AlarmLimit&) = default;
};

/// What is done besides telling.
struct Action {
  enum class Kind : std::uint8_t { open_case, pause, snapshot, deny, run };
  Kind kind = Kind::open_case;
  std::string command{};   // of `run`: a line for the shell
  bool with_core = false;  // of a case
  friend bool operator==(const Action&, const Action&) = default;
};
std::string to_string(const Action& action);  // "case", "case core", "run CMD"

struct Rule {
  std::string name, desc;
  bool enabled = true;
  PlacedText condition;  // "": it always holds
  PlacedText output;     // a template
  Priority priority = Priority::notice;
  std::vector<std::string> tags;
  std::vector<Exception> exceptions;
  std::optional<AlarmLimit> limit;
  std::vector<Action> actions;
  std::vector<std::string> references;
  std::string false_positives, test;
  RuleKind kind;
  Place place;
  friend bool operator==(const Rule&, const Rule&) = default;
};

/// "RULE.yaml:3: rule "x": ", with which errors about a rule begin.
std::string about(const Rule& rule, const Place& place);

/// The nanoseconds of "30s", "5m", "100ms", "1h": a whole number with ns, us, ms, s, m, h or d.
/// nullopt for anything else, and for what 64 bits cannot hold.
std::optional<std::uint64_t> parse_duration(std::string_view text);

/// Which rules are to run.
struct Selection {
  std::vector<std::string> names;     // these, also if they are not enabled
  std::vector<std::string> tags;      // those that are enabled and have one of these
  std::vector<std::string> disabled;  // names or tags: not these
};
/// Without names and tags: all that are enabled. not_found for a name or tag that no rule has.
Result<std::vector<Rule>> select(std::vector<Rule> rules, const Selection& selection);

}  // namespace vmsight::detect
