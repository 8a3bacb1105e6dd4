// What runs one rule on one guest.
//
//   compiled rule + guest -> Detector -- look(), hit() --> alarms
//
// Detectors know no technique and no engine: they get states that were read and hits that came.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "detect/compiled_rule.h"
#include "vmsight/probe.h"
#include "vmsight/state.h"

namespace vmsight::detect {

/// A moment at which the guest was looked at.
struct Look {
  const State& state;  // has at least the parts that the detector asked for
  Kernel& kernel;
  Reader& reader;              // of the same view
  const VmInfo* vm = nullptr;  // nullptr: an image
  std::uint64_t host_ns = 0;   // the host's monotonic clock
  std::uint64_t guest_ns = 0;  // how long the guest has run: stands while it is paused
  /// Where a task hangs, for a person: of one that sleeps the function that waits, of one that runs
  /// the place where its CPU is; "" if that cannot be told. Costs a question to QEMU's monitor.
  std::function<std::string(GuestVirt task, std::int32_t cpu, bool runs)> where;
  /// Why the guest stands if somebody wants it to ("paused"), "" if it should run, or nobody knows.
  std::function<std::string()> halted_by_somebody;
  /// Whether the vCPUs run something else than this kernel, as firmware and what unpacks the next kernel after a
  /// reset: what is in memory of this one stands then. False if that cannot be told. Costs a question, too.
  std::function<bool()> runs_other_code;
};

/// What a detector has found; the frame makes an alarm of it.
struct Detection {
  const Fields& fields;
  std::int32_t pid = 0;  // of the process that it is about, 0 if of none
  std::string object;    // what it is about, for one alarm until it is over; "": each is its own
  nlohmann::json evidence = nlohmann::json::object();
};
using Raise = std::function<void(Detection)>;

class Detector {
 public:
  virtual ~Detector() = default;
  virtual const CompiledRule& rule() const = 0;
  /// Parts of the state that look() needs, and how often; 0: it only waits for hits.
  virtual unsigned parts() const = 0;
  virtual std::uint64_t every_ns() const = 0;
  /// Probes that are to be armed for it, all in its name. After a look they may be others: those that are asked
  /// for no more are disarmed.
  virtual std::vector<ProbeRequest> probes() const = 0;

  virtual void look(const Look& look, const Raise& raise) = 0;
  virtual void hit(const ProbeRequest& request, const ProbeEvent& event, const Raise& raise) = 0;
  /// How often the probes of this request were hit so far, and its filter passed, where they are only counted.
  virtual void counted(const ProbeRequest& request, std::uint64_t hits) = 0;
};

/// Where the types of what probes see are looked up.
struct ProbedKernel {
  Kernel& kernel;
  Reader& reader;
  std::string vm{};  // its name
};

/// The fields that this rule can name, as far as that is known without a guest: of a probe those that every
/// hit has, and the rule's own. usage if the rule names what is none.
Result<std::unique_ptr<FieldNames>> field_names(const Rule& rule);
/// usage, with file and line, for a condition or output that makes no sense; not_found if the guest lacks the
/// rule's functions now; unsupported if they cannot have its fields.
Result<std::unique_ptr<Detector>> make_detector(const Rule& rule, const RuleSet& set,
                                                const ProbedKernel& guest);
/// What can be said of a rule without a guest: of a probe's condition only whether it is well formed.
Result<void> check_rule(const Rule& rule, const RuleSet& set);

// One file each.
Result<std::unique_ptr<Detector>> make_state_detector(CompiledRule rule);
Result<std::unique_ptr<Detector>> make_progress_detector(CompiledRule rule);
Result<std::unique_ptr<Detector>> make_heartbeat_detector(CompiledRule rule);
Result<std::unique_ptr<Detector>> make_loop_detector(CompiledRule rule);
Result<std::unique_ptr<Detector>> make_probe_detector(const Rule& rule, const RuleSet& set,
                                                      const ProbedKernel& guest);
Result<std::unique_ptr<Detector>> make_integrity_detector(CompiledRule rule);
Result<std::unique_ptr<FieldNames>> integrity_field_names(const Rule& rule);
Result<std::unique_ptr<FieldNames>> state_field_names(const Rule& rule);
std::unique_ptr<FieldNames> progress_field_names(const Rule& rule);
std::unique_ptr<FieldNames> heartbeat_field_names(const Rule& rule);
std::unique_ptr<FieldNames> loop_field_names();
Result<std::unique_ptr<FieldNames>> probe_field_names(const Rule& rule);

/// "11.5s", as alarms say how long something has been so.
std::string seconds_text(std::uint64_t ns);

/// `first` wins over `second`.
class JoinedFields final : public Fields {
 public:
  JoinedFields(const Fields& first, const Fields& second) : first_(first), second_(second) {}
  Value get(std::string_view name) const override {
    Value value = first_.get(name);
    return is_absent(value) ? second_.get(name) : value;
  }

 private:
  const Fields &first_, &second_;
};

}  // namespace vmsight::detect
