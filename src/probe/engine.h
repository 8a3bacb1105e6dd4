// What an engine of probes implements. It is internal: users of the library have Prober
// (vmsight/probe.h), which knows sites, names and types, and gives an engine what is left of them.
//
//   Site -> ProbeSite (an address) -> ProbeOrder -> ProbeEngine -> Hit -> sink -> ProbeEvent
//
// An engine knows addresses, registers and bytes. What has to be read at a hit is told to it
// beforehand, as a list of ProbeFetches. A method that an engine cannot serve says so by an error
// with the reason: there are no defaults that pretend.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/probe.h"

namespace vmsight {

// ---- what is read at a hit -----------------------------------------------------------------

/// What is to be read at a hit, without knowing its meaning.
///
///   value = register;  for each step: value = *(u64 *)(value + step);  value += offset;  then
///   value   nothing more                  bytes   the `size` bytes at value
///   string  the bytes at value up to a NUL, at most `size`
///
/// A null pointer on the way ends it: texts and bytes are `ok` and empty, of a value nothing is known.
/// An address below 2^63 is of the current task's user space.
struct ProbeFetch {
  enum class What : std::uint8_t { value, string, bytes };
  static constexpr std::size_t max_steps = 3;
  static constexpr std::uint16_t max_size = 4096;
  static constexpr std::uint8_t of_task = 16;  // as base: the address of the task that runs
  What what = What::value;
  std::uint8_t base = reg::rdi;  // index of a general register, or of_task
  std::uint8_t step_count = 0;
  std::array<std::int32_t, max_steps> steps{};
  std::int32_t offset = 0;
  std::uint16_t size = 0;   // bytes
  bool from_entry = false;  // at a return: the register as it was at the entry
  friend bool operator==(const ProbeFetch&, const ProbeFetch&) = default;
};
struct Fetched {
  bool ok = false;          // false: not mapped, or not present at that moment
  bool has_value = false;   // `value` is known, though what it points to may not be
  bool cut = false;         // a string longer than asked for
  std::uint64_t value = 0;  // after the steps
  std::string bytes;
};

/// One passing of a probe, with what its order asked for.
struct Hit : ProbeHit {
  std::vector<Fetched> fetched;         // at the entry, in the order of ProbeOrder::fetches
  std::vector<Fetched> fetched_return;  // at the return, in that of fetches_return
  bool can_be_refused = false;          // the sink may set `refusal`
  std::optional<std::int64_t> refusal;  // what the function is to return instead of running
};

// ---- filters -------------------------------------------------------------------------------

/// A filter as an engine evaluates it: terms, and how they combine, in postfix order.
struct FilterTerm {
  enum class Field : std::uint8_t { pid, tgid, comm, cpu, fetch, fetch_return, duration };
  enum class Compare : std::uint8_t { equal, unequal, less, less_equal, greater, greater_equal };
  Field field = Field::pid;
  Compare compare = Compare::equal;
  std::uint16_t index = 0;  // of a fetch
  std::uint8_t bits = 64;   // of a fetched value: what counts of it
  bool is_signed = false;
  bool may_be_int = false;  // signed, of a type that is not known: an int if the upper half is 0
  /// Of the return's fetches: stands for a string that was not there at the entry.
  std::optional<std::uint16_t> again;
  std::optional<std::string> text;  // compared with a string (comm, fetched strings)
  std::int64_t number = 0;          // durations are in ns
};
struct FilterStep {
  enum class Kind : std::uint8_t { term, both, either, negate };
  Kind kind = Kind::term;
  std::uint16_t term = 0;
};
/// Without steps everything passes.
struct ProbeFilter {
  static constexpr std::size_t max_terms = 32;
  std::vector<FilterTerm> terms;
  std::vector<FilterStep> steps;
  bool needs_return() const;  // it asks for the result or the duration
};
/// What the filter says of a hit; a value that could not be read passes no term. A null pointer and a
/// string that was cut are equal to no text.
bool passes(const ProbeFilter& filter, const Hit& hit);
/// Whether an entry cannot be judged before its call returns: a string was not there that may be then.
bool is_undecided(const ProbeFilter& filter, const Hit& entry);

// ---- orders --------------------------------------------------------------------------------

/// One probe as an engine gets it.
struct ProbeOrder {
  ProbeId id = 0;
  ProbeSite site;
  std::vector<ProbeFetch> fetches;         // at the entry
  std::vector<ProbeFetch> fetches_return;  // at the return
  ProbeFilter filter;                      // evaluated by the engine, as near to the hit as it can
  bool counts_only = false;                // no hits are told, only counts() grow
  bool standing = false;  // the sink is called while the guest stands, by engines that stop it
  std::uint64_t rate_limit = 0;  // hits a second that are told; 0: all
  /// Hits a second that the guest can be asked to bear: an engine that lets the guest run on disarms a
  /// probe that is hit more often (`stormed`). The default is about half a CPU or more.
  std::uint64_t storm_limit = default_storm_limit;
};

/// Whether the filter is evaluated at the return of calls: it asks for what only that knows, which the CPU is, too.
bool filters_at_return(const ProbeOrder& order);

// ---- engines -------------------------------------------------------------------------------

/// Arms probes in one VM. Not thread safe. Destroying it disarms everything, and waits for that.
class ProbeEngine {
 public:
  /// Gets one hit, which it may move from. It must not call the engine.
  using Sink = std::function<void(Hit&)>;
  virtual ~ProbeEngine() = default;
  /// The same for as long as the engine lives.
  virtual EngineAbilities abilities() const = 0;

  /// Whether arm() would take the order, as far as that is known without disturbing the guest: unsupported,
  /// naming the site and the reason, if not. Orders that the abilities rule out need not be asked about.
  virtual Result<void> check(const ProbeOrder& order) = 0;
  /// Arms all of them, under one pause of the guest, or none: with an error the guest's code is as it was.
  /// unsupported, naming the site and the reason, for one that this engine cannot arm; vm_gone.
  virtual Result<void> arm(std::span<const ProbeOrder> orders) = 0;
  /// The same; an id that is not armed is no error. Calls that are under way are not told any more. After an
  /// error some may still be armed: they are disarmed when the engine is destroyed, or by the guard.
  virtual Result<void> disarm(std::span<const ProbeId> ids) = 0;
  /// The code of these sites is in the guest's memory no more: they are disarmed, and what is in its place
  /// now stays as it is.
  virtual Result<void> forget(std::span<const ProbeId> ids) = 0;

  /// An armed user site is elsewhere now: processes that have its code have come or gone (`places`), or the
  /// guest has read its file's inode anew (`inode`). Of `now` the engine uses what it reaches the code by. May
  /// pause the guest, as arm() does. An id that is not armed is no error.
  virtual Result<void> follow(ProbeId id, const ProbeSite& now) = 0;

  /// Waits for hits, tells them to `sink`, and returns how many there were: after `patience`
  /// without any, or when all that had come were told. vm_gone if the VM ends or reboots.
  virtual Result<std::size_t> poll(std::chrono::milliseconds patience, const Sink& sink) = 0;
  /// Tells what has already come, and does not wait. To be called after disarm(), or instead of it if the VM
  /// has ended. Of probes that are still armed, and hit on and on, it tells a bounded number.
  virtual void drain(const Sink& sink) = 0;

  /// not_found if it was never armed. Counts stay after disarming.
  virtual Result<ProbeCounts> counts(ProbeId id) = 0;
  /// Traps that belong to no probe of ours: forged by the guest, or left from before.
  virtual std::uint64_t foreign() const = 0;
  /// Hits that were told after later ones: they had come too late to be put in order.
  virtual std::uint64_t late() const = 0;
};

/// What engines need of the VM, and how they are to work. All that it refers to must outlive the engine.
struct EngineSetting {
  /// For measuring what a trap costs whose hits are rejected. Traps are armed, but what handles them takes the
  /// VM for another, does not know the addresses, or is not there at all.
  enum class Blind : std::uint8_t { not_at_all, to_this_vm, to_its_sites, to_everything };

  const Vm& vm;
  Kernel& kernel;
  GuestMemory& memory;  // live and passive, and not used by anybody else while the engine works
  Blind blind = Blind::not_at_all;
  std::chrono::milliseconds max_halt =
      default_max_halt;     // while it arms, and at a hit that it stops at
  bool ends_storms = true;  // false: probes stay armed however often they are hit
};

/// One kind of engine; each is defined in the file that implements it.
struct EngineInfo {
  std::string_view name;  // "kvm": what the user may ask for
  std::string_view what;  // one line
  std::string_view cost;  // one line: what a hit costs the guest
  /// What it can do with this VM if it can be used.
  EngineAbilities (*abilities)(const VmInfo& vm);
  /// The errors of open(), as far as they can be known without loading anything or disturbing the guest.
  Result<void> (*check)(const VmInfo& vm);
  /// unsupported or permission, with the reason and a hint, if it cannot be used here, or cannot be as blind
  /// as it shall be. Changes nothing in the guest or in QEMU yet.
  Result<std::unique_ptr<ProbeEngine>> (*open)(const EngineSetting& setting);
};
/// Breakpoints of QEMU's gdbstub: any instruction, of guests under KVM and of emulated ones.
extern const EngineInfo gdbstub_engine;
/// Functions of kernels and programs under KVM, seen by eBPF in the host's kernel.
extern const EngineInfo kvm_engine;

/// All of them, the cheapest for the guest first: "auto" tries them in this order.
std::span<const EngineInfo* const> all_engines();
/// By the name that the user gave, or the first that works ("auto"). usage for a name that is none; else why not.
Result<std::unique_ptr<ProbeEngine>> open_engine(const EngineSetting& setting,
                                                 std::string_view name = "auto");

}  // namespace vmsight
