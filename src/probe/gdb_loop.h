// What happens from one stop of the guest at a breakpoint to the next:
//
//   stop -> registers -> which trap, whose -> who runs, what was to be fetched -> filter -> Hit
//        -> past the breakpoint, and on
//
// Knows a gdbstub and guest memory, but not how either was come by.
#pragma once

#include <map>
#include <optional>

#include "base/clock.h"
#include "probe/current_task.h"
#include "probe/gdb_traps.h"
#include "probe/hit_memory.h"
#include "probe/x86_64/gdb_registers.h"
#include "qemu/gdb_client.h"

namespace vmsight {

class GdbLoop {
 public:
  struct Options {
    GdbTraps::Kind kind = GdbTraps::Kind::software;
    bool skips_endbr = true;
    std::size_t max_traps = 0;  // 0: no limit
    bool refresh = false;       // views keep pages: begin a new one at each stop
  };
  /// `reader` reads kernel addresses; `current` and it must outlive the loop.
  GdbLoop(Reader& reader, const CurrentTask& current, Options options)
      : reader_(reader),
        architecture_(reader.space().architecture()),
        current_(current),
        options_(options),
        traps_(options.kind) {}

  // The guest stands when these are called, and afterwards.

  /// All or none. unsupported if there are too many for the CPU, or the stub refuses one.
  Result<void> arm(GdbClient& client, std::span<const ProbeOrder> orders);
  Result<void> disarm(GdbClient& client, std::span<const ProbeId> ids);
  Result<void> disarm_all(GdbClient& client);
  /// Other processes than before. `needs_stop` says beforehand whether breakpoints change: if not,
  /// the guest may run.
  bool needs_stop(ProbeId id, std::span<const UserPlace> places) const;
  Result<void> set_places(GdbClient& client, ProbeId id, std::span<const UserPlace> places);

  /// The guest stands because of `stop`; it runs when this returns without error, unless it says
  /// `stands`: somebody else stopped it. Adds to `told`.
  enum class After { runs, stands };
  Result<After> handle(GdbClient& client, const GdbStop& stop, const ProbeEngine::Sink& sink,
                       std::size_t& told);

  bool is_idle() const { return armed_.empty(); }
  Result<ProbeCounts> counts(ProbeId id) const;
  std::uint64_t foreign() const { return foreign_; }

 private:
  struct Probe {
    ProbeOrder order;
    ProbeCounts counts;                            // a call is a missed return until it comes back
    std::uint64_t second = 0, told_in_second = 0;  // for the rate limit
  };
  /// A call whose return we wait for.
  struct Call {
    ProbeId probe = 0;
    std::uint64_t return_address = 0;
    std::uint64_t time_ns = 0, stood_ns = 0;
    ProbeRegisters registers;
    ProbeTask task;
    std::vector<Fetched> fetched;
    bool undecided = false;  // the filter asks for what was not there at the entry
  };
  using CallKey = std::pair<std::uint64_t, std::uint64_t>;  // task, stack pointer at the entry

  /// What is known of a stop.
  struct Moment {
    std::uint64_t time_ns = 0;
    unsigned vcpu = 0;
    GdbRegisters gdb;
    CurrentTask::Found who;
    std::optional<std::uint64_t> back{};  // at a function's entry: where it returns to
  };

  void read_code(GdbTrap& trap, std::uint64_t address, const ProbeOrder& order);
  bool code_is_same(const GdbTrap& trap, HitMemory& memory, std::uint64_t address) const;
  bool is_of(const ProbeOrder& order, const Moment& moment) const;
  void on_entry(Probe& probe, const Moment& moment, HitMemory& memory);
  void expect_return(Probe& probe, const Moment& moment, HitMemory& memory, Hit hit);
  void tell_return(Call& call, const Moment& moment, HitMemory& memory);
  bool on_return(const Moment& moment, HitMemory& memory);
  void forget_call(const Call& call);
  void fetch(std::span<const ProbeFetch> wanted, const Moment& moment,
             const ProbeRegisters& at_entry, HitMemory& memory, std::vector<Fetched>& into) const;
  void tell(Probe& probe, Hit hit);
  void deliver(bool standing, const ProbeEngine::Sink& sink, std::size_t& told);
  void allow_refusal(Moment& moment, HitMemory& memory);
  std::optional<std::int64_t> refusal() const;
  Result<After> go_on(GdbClient& client, const Moment& moment, HitMemory& memory);
  Result<After> step_and_go_on(GdbClient& client, const Moment& moment);
  Result<void> run(GdbClient& client, std::vector<std::string> orders);
  Result<void> order_all(GdbClient& client, std::span<const std::string> orders);

  Reader& reader_;
  const Architecture& architecture_;
  const CurrentTask& current_;
  Options options_;
  GdbTraps traps_;
  bool sets_registers_ = false;
  std::map<ProbeId, Probe> armed_;
  std::map<ProbeId, ProbeCounts> past_;  // of probes that were disarmed
  std::map<CallKey, std::vector<Call>> calls_;
  std::size_t call_count_ = 0;
  struct Waiting {
    Hit hit;
    bool standing;
  };
  std::vector<Waiting> waiting_;  // hits of this stop
  std::uint64_t foreign_ = 0;
  std::uint64_t stood_ns_ = 0;  // how long the guest stood for us in all
};

}  // namespace vmsight
