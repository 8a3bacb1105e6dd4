// Rules that run on one guest: reads what its detectors want to see, arms their probes, makes alarms
// of what they find, and begins anew when the guest has rebooted.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "detect/alarm.h"
#include "kernel/stack_unwinder.h"
#include "state/jiffies.h"
#include "vmsight/guest.h"
#include "watch/detector.h"

namespace vmsight::detect {

struct GuestWatchOptions {
  AttachOptions attach;
  std::string engine = "auto";                           // of probes
  bool may_deny = false;                                 // rules may have calls refused
  std::function<void(const Alarm&, const Rule&)> alarm;  // gets each alarm that is to be delivered
  std::function<void(std::string_view)> note;            // one line for the operator
};

/// Rules, and what their names stand for.
struct WatchedRules {
  std::shared_ptr<const RuleSet> set;
  std::vector<Rule> rules;  // those that run; no two have the same name
};

/// What became of rules that were read again.
struct RuleChanges {
  std::size_t added = 0, changed = 0, removed = 0, unchanged = 0;
};

class GuestWatch {
 public:
  /// Nothing is attached yet.
  GuestWatch(std::string spec, WatchedRules rules, GuestWatchOptions options);
  ~GuestWatch();

  /// Errors of attach(). A rule that this guest cannot have is noted and left out; unsupported if
  /// none is left.
  Result<void> open();
  /// Looks that are due are taken, hits that came are judged; waits for at most so long. vm_gone if
  /// the VM has ended. A guest that reboots is followed.
  Result<void> step(std::chrono::milliseconds patience);
  /// Disarms, and delivers sums of repeats.
  Result<void> finish();

  /// Other rules from now on. One that says what it said before keeps what is armed for it, what it
  /// remembers and its counts; one that has changed begins anew.
  Result<RuleChanges> replace_rules(WatchedRules rules);

  /// Stops the guest for good (QMP), and leaves a record of who wanted it. What is armed by an engine that
  /// stops the guest is disarmed first, and armed again when somebody has resumed it. False if it stood
  /// already. unsupported if there is no monitor.
  Result<bool> pause(const std::string& by);

  /// Instead of open() and step(): what the rules would do to this guest and cost it, as an object for people and
  /// programs. Attaches and reads the state once; arms nothing.
  Result<nlohmann::json> plan();

  const std::string& name() const { return name_; }
  Guest& guest() { return guest_; }
  /// The whole state, or parts of it, now.
  Result<void> read(unsigned parts, State& into);
  /// What each rule does: armed sites, hits, looks, alarms; what reading the state takes.
  nlohmann::json status();

 private:
  struct Armed {
    ProbeRequest request;
    std::vector<ProbeId> ids;
  };
  struct Running {
    Rule rule;
    std::unique_ptr<Detector> detector;  // nullptr: what it probes is not there yet
    std::vector<Armed> armed;
    bool has(const ProbeRequest& request) const;
    bool has(ProbeId id) const;
    bool pending = false;  // its sites are not there yet
    bool broken = false;   // it cannot be had; said once
    std::string reason;
    std::uint64_t next_look_ns = 0, next_try_ns = 0, looks = 0, alarms = 0;
    std::uint64_t hits = 0, told = 0;  // of its probes; those that its condition was asked about
    std::set<std::string> over_there, now_there;  // objects of the look before, and of this one
  };
  enum class Doubt : std::uint8_t { waits, is_told };
  struct Moment {
    std::uint64_t host_ns = 0, guest_ns = 0;
  };
  struct Found {
    Alarm alarm;
    std::string key;
    Running* by = nullptr;
    std::optional<Moment> seen{};  // by a look: told when the kernel that it was read from lives on
  };

  Result<void> attach_guest();
  Result<void> resolve_kernel();
  Result<void> open_kernel();
  static std::unique_ptr<Running> begin(Rule rule);
  nlohmann::json plan_of(Running& running);
  nlohmann::json status_of(const Running& running, const std::vector<ProbeInfo>& probes) const;
  bool is_suspended(std::uint64_t now_ns);
  void disarm_what_stops();
  void look_after_probes();
  Result<void> follow_reboot(const Error& why);
  Result<void> open_prober();
  void arm_pending(std::uint64_t now_ns);
  void follow_modules(std::uint64_t now_ns);
  Result<void> make(Running& running);
  Result<void> arm(Running& running);
  Result<std::vector<ProbeId>> add(Running& running, ProbeRequest request, bool denies);
  Result<void> disarm_others(Running& running, const std::vector<ProbeRequest>& wanted);
  Result<void> check_denial(std::span<const ProbeRequest> requests);
  void tell_end(Running& running, const ProbeInfo& probe);
  void note_once(Running& running, std::string reason);
  Result<void> look(std::uint64_t now_ns);
  Result<void> check_found();
  Moment now();
  static bool lives_on(const Moment& seen, const Moment& now);
  std::vector<Found> take_found(Doubt doubt);
  void look_by(Running& running, const Look& look);
  Look make_look(Reader& reader, std::uint64_t now_ns);
  void count_hits();
  void raise(Running& running, Detection detection, std::optional<Moment> seen);
  void deliver_found(Doubt doubt = Doubt::waits);
  nlohmann::json evidence_of(std::int32_t pid);
  std::uint64_t guest_time(Reader& reader);
  std::string place_of(Reader& reader, GuestVirt task, std::int32_t cpu, bool runs);
  std::string symbol_of(GuestVirt address);
  std::string halted_by_somebody();
  bool runs_other_code();
  std::uint64_t next_due_ns() const;

  std::string spec_, name_;
  WatchedRules rules_;
  GuestWatchOptions options_;
  Guest guest_;
  std::unique_ptr<GuestMemory> probe_memory_;  // the prober's own: it begins views of it
  std::unique_ptr<StateReader> state_reader_;
  std::unique_ptr<StackUnwinder> unwinder_;
  State state_;
  Jiffies jiffies_{};
  std::vector<std::unique_ptr<Running>> running_;
  AlarmLimiter limiter_;
  std::map<std::string, Rule>
      rule_by_name_;  // also those that were taken away: sums may be to come
  std::vector<Found> found_;
  std::uint64_t counted_ns_ = 0;
  std::uint64_t modules_ns_ = 0;                 // when they were looked at last
  std::vector<std::string> modules_{};           // that were loaded then
  std::uint64_t readings_ = 0, reading_ns_ = 0;  // of the state
  bool suspended_ = false;                       // by pause(), with nothing armed
  std::uint64_t next_run_check_ns_ = 0;
  std::unique_ptr<Prober> prober_;  // the first to go: its handlers use the rest
};

}  // namespace vmsight::detect
