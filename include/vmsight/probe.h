// Probes: a handler is called each time a running guest passes a place in its code, with what its
// vCPU knew there.
//
//   text "kprobe:vfs_read" -> Site -> ProbeSite (an address) -> ProbeEngine -> Hit -> handler
//
// Prober is what users of the library need; ProbeEngine is what an engine implements. An engine
// knows addresses, registers and bytes; names and types of arguments are not its business: what
// has to be read at a hit is told to it beforehand, as a list of Fetches.
//
// A probe changes the guest (or QEMU) while it is armed. Every engine records that on disk first,
// and undoes it when the probe is removed, when the engine is destroyed, and, by the guard, within
// a second if this process is killed.
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

#include "vmsight/kernel.h"
#include "vmsight/memory.h"
#include "vmsight/reader.h"
#include "vmsight/result.h"
#include "vmsight/vm.h"

namespace VMSIGHT_PUBLIC vmsight {

using ProbeId = std::uint32_t;

// ---- where ---------------------------------------------------------------------------------

/// A place as bpftrace users write it; not yet looked for in a guest.
///
///   kprobe:SYMBOL[+OFFSET]          kprobe:MODULE:SYMBOL    kprobe:0xADDRESS    kprobe:tcp_*
///   kretprobe:SYMBOL
///   uprobe:PATH:SYMBOL[+OFFSET]     uprobe:PATH:0xOFFSET    uprobe:0xADDRESS (of one process)
///   uretprobe:PATH:SYMBOL
struct Site {
  bool user = false;       // uprobe, uretprobe
  bool at_return = false;  // kretprobe, uretprobe
  std::string module;      // "" for any
  std::string path;        // of a user program or library, as the guest's processes see it
  std::string symbol;      // may hold * ? [..]; "" if an address is given
  std::uint64_t offset = 0;
  std::optional<std::uint64_t>
      address;  // kernel: virtual; user: virtual, or with a path in the file
  bool is_pattern() const { return symbol.find_first_of("*?[") != std::string::npos; }
};
/// usage, naming what is wrong with the text.
Result<Site> parse_site(std::string_view text);
std::string to_string(const Site& site);

/// Where a process has the code of a user site.
struct UserPlace {
  std::int32_t tgid = 0;
  GuestVirt mm;       // its mm_struct
  GuestPhys root;     // of its page table
  GuestVirt address;  // of the site
  friend bool operator==(const UserPlace&, const UserPlace&) = default;
};

/// What tells a file of the guest from others, also when the guest has forgotten its inode and read it anew.
struct FileIdentity {
  std::uint64_t superblock = 0, number = 0;  // where its struct super_block is; of the inode
  std::uint32_t generation = 0;              // of the inode: numbers are used again
  friend auto operator<=>(const FileIdentity&, const FileIdentity&) = default;
};

/// A site found in a guest.
struct ProbeSite {
  bool user = false;
  bool at_return = false;    // armed at the function's entry, told at its return
  GuestVirt address;         // of the instruction; kernel sites only
  std::string function;      // "vfs_read"; "" for a raw address
  std::string module;        // kernel module, or path of the user file; "" for the kernel itself
  std::uint64_t offset = 0;  // from the function's start
  std::uint64_t size = 0;    // of the function, 0 if unknown
  // User sites only:
  std::vector<UserPlace> places;  // processes that map it now
  GuestVirt inode;                // of the file: its page cache is what processes share
  FileIdentity file;
  std::uint64_t file_offset = 0;  // of the instruction
  bool any_process = true;        // false: of `places` only, not of processes to come
  bool replaced = false;          // programs that run now have another file at its path
};
/// "vfs_read+0x10", "/bin/bash:readline", "0xffffffff81000000".
std::string to_string(const ProbeSite& site);

// ---- what is known at a hit ----------------------------------------------------------------

/// Registers of a vCPU. Those that an engine could not learn at a hit are not `known`.
struct ProbeRegisters {
  /// As VcpuRegisters::general: rax rbx rcx rdx rsi rdi rsp rbp r8 ... r15.
  std::array<std::uint64_t, 16> general{};
  std::uint64_t rip = 0, rflags = 0, cr3 = 0, gs_base = 0;
  std::uint32_t known = 0;  // a bit for each, in this order
  bool has(unsigned index) const { return (known >> index & 1) != 0; }
};
namespace reg {
inline constexpr unsigned rax = 0, rbx = 1, rcx = 2, rdx = 3, rsi = 4, rdi = 5, rsp = 6, rbp = 7,
                          r8 = 8, r9 = 9, r10 = 10, r11 = 11, r15 = 15;
inline constexpr unsigned rip = 16, rflags = 17, cr3 = 18, gs_base = 19;
inline constexpr std::uint32_t all_general = 0xffff;
}  // namespace reg

/// Who was running. Nothing is known in the few places where the kernel has no `current`.
struct ProbeTask {
  GuestVirt task;                  // its task_struct; 0: not known
  std::int32_t pid = 0, tgid = 0;  // thread and process
  std::array<char, 16> comm{};     // the guest's raw bytes, NUL-terminated
  std::string_view name() const { return comm.data(); }
};

/// What is to be read at a hit, without knowing its meaning.
///
///   value = register;  for each step: value = *(u64 *)(value + step);  value += offset;  then
///   value   nothing more                  bytes   the `size` bytes at value
///   string  the bytes at value up to a NUL, at most `size`
///
/// A null pointer on the way ends it: `ok`, with no bytes. An address below 2^63 is of the current
/// task's user space.
struct ProbeFetch {
  enum class What : std::uint8_t { value, string, bytes };
  static constexpr std::size_t max_steps = 3;
  static constexpr std::uint16_t max_size = 4096;
  What what = What::value;
  std::uint8_t base = reg::rdi;  // index of a general register
  std::uint8_t step_count = 0;
  std::array<std::int32_t, max_steps> steps{};
  std::int32_t offset = 0;
  std::uint16_t size = 0;
  bool from_entry = false;  // at a return: the register as it was at the entry
};
struct Fetched {
  bool ok = false;          // false: not mapped, or not present at that moment
  bool has_value = false;   // `value` is known, though what it points to may not be
  bool cut = false;         // a string longer than asked for
  std::uint64_t value = 0;  // after the steps
  std::string bytes;
};

/// One passing of a probe.
struct Hit {
  ProbeId probe = 0;
  bool at_return = false;
  std::uint64_t time_ns = 0;      // the host's monotonic clock
  std::uint64_t duration_ns = 0;  // at a return: since the entry
  unsigned vcpu = 0;              // QEMU's number of it
  ProbeRegisters registers;
  ProbeTask task;  // at a return: as it was at the entry, before the call gave it another name
  std::vector<Fetched> fetched;         // at the entry, as asked for
  std::vector<Fetched> fetched_return;  // at the return
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
  std::int64_t number = 0;
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

// ---- engines -------------------------------------------------------------------------------

inline constexpr std::uint64_t default_storm_limit = 500'000;

/// One probe as an engine gets it.
struct ProbeOrder {
  ProbeId id = 0;
  ProbeSite site;
  std::vector<ProbeFetch> fetches;         // at the entry
  std::vector<ProbeFetch> fetches_return;  // at the return
  ProbeFilter filter;                      // evaluated by the engine, as near to the hit as it can
  bool counts_only = false;                // no hits are told, only counts() grow
  bool standing = false;                   // hits are told while the guest stands, where possible
  std::uint64_t rate_limit = 0;            // hits a second that are told; 0: all
  /// Engine kvm: hits a second that the guest can be asked to bear. A probe that is hit more often is
  /// disarmed (`stormed`). An exit takes 0.5 to 2 us: the default is about half a CPU or more.
  std::uint64_t storm_limit = default_storm_limit;
};

/// Whether the filter is evaluated at the return of calls: it asks for what only that knows, which the CPU is, too.
bool filters_at_return(const ProbeOrder& order);

struct ProbeCounts {
  std::uint64_t hits = 0;            // at a return: returns; of the processes that the site names
  std::uint64_t filtered = 0;        // of these: the filter said no
  std::uint64_t told = 0;            // handed to the sink
  std::uint64_t lost = 0;            // hits that could not be told: buffers full
  std::uint64_t missed_returns = 0;  // entries whose return has not been seen, for whatever reason
  std::uint64_t rate_limited = 0;    // not told because of the rate limit
  std::uint64_t foreign = 0;         // trap of this site by another process, privilege or address
  std::uint64_t reloads =
      0;  // user sites: how often its page came into the guest's memory, and was patched
          // only then: calls before (half a second, or so) were not seen
  bool absent = false;   // user sites: its page is not in the guest's memory now
  bool stormed = false;  // disarmed by the engine because it hit too often
  /// Durations of calls (return probes): bucket i counts those in [2^i, 2^(i+1)) ns.
  std::array<std::uint64_t, 64> durations{};
};

/// What an engine can do with this VM; a reason is a sentence for people, "" where it can.
struct EngineAbilities {
  std::string_view name;         // "gdbstub", "kvm"
  bool any_instruction = false;  // else only where functions begin
  bool user_sites = false;
  bool standing = false;  // sinks can be called while the guest stands
  bool return_sites = false;
  std::size_t max_sites = 0;  // at once; 0: no limit worth naming
  std::string why_not;        // why it cannot be used at all
  std::string hint;
};

/// Arms probes in one VM. Not thread safe. Destroying it disarms everything.
class ProbeEngine {
 public:
  using Sink = std::function<void(Hit&)>;
  virtual ~ProbeEngine() = default;
  virtual EngineAbilities abilities() const = 0;

  /// Whether arm() would take it, as far as that is known beforehand: unsupported with the reason if not.
  virtual Result<void> check(const ProbeOrder& order) {
    static_cast<void>(order);
    return {};
  }
  /// Arms all of them, under one pause of the guest, or none. unsupported, naming the site and the
  /// reason, for one that this engine cannot arm; vm_gone.
  virtual Result<void> arm(std::span<const ProbeOrder> orders) = 0;
  /// The same; an id that is not armed is no error. Calls that are under way are not told any more.
  virtual Result<void> disarm(std::span<const ProbeId> ids) = 0;

  /// Processes have come or gone that have the code of an armed user site. Not asked of engines that
  /// probe the file's page, which all processes share.
  virtual Result<void> set_places(ProbeId id, std::span<const UserPlace> places) {
    static_cast<void>(id), static_cast<void>(places);
    return {};
  }

  /// The guest has read the file's inode anew, it is there now. Not asked of engines that only know processes.
  virtual Result<void> set_inode(ProbeId id, GuestVirt inode) {
    static_cast<void>(id), static_cast<void>(inode);
    return {};
  }

  /// Waits for hits, tells them to `sink`, and returns how many there were: after `patience`
  /// without any, or when all that had come were told. vm_gone if the VM ends or reboots.
  virtual Result<std::size_t> poll(std::chrono::milliseconds patience, const Sink& sink) = 0;

  /// Delivers what has already come. Call it after disarming, or instead of it if the VM has ended.
  virtual void drain(const Sink& sink) {
    constexpr int rounds = 64;  // what is still armed may be hit on and on
    for (int i = 0; i < rounds; ++i) {
      const auto told = poll(std::chrono::milliseconds(0), sink);
      if (!told || *told == 0) return;
    }
  }

  /// not_found if it was never armed. Counts stay after disarming.
  virtual Result<ProbeCounts> counts(ProbeId id) = 0;
  /// Traps that belong to no probe of ours: forged by the guest, or left from before.
  virtual std::uint64_t foreign() const = 0;

  /// The code of these sites is in the guest's memory no more, and whatever is there now is left alone. They are
  /// disarmed otherwise.
  virtual Result<void> forget(std::span<const ProbeId> ids) { return disarm(ids); }
  /// Hits that were delivered after later ones: they had come too late to be put in order.
  virtual std::uint64_t late() const { return 0; }
};

/// What engines need of the VM. All must outlive the engine.
struct EngineSetting {
  const Vm& vm;
  Kernel& kernel;
  GuestMemory& memory;  // a live view, not used by anybody else while the engine works
};
Result<std::unique_ptr<ProbeEngine>> open_gdbstub_engine(const EngineSetting& setting);
/// Functions of kernels and programs under KVM, seen by eBPF in the host's kernel. unsupported or permission, with
/// the reason and a hint, if the guest is emulated, or the host does not let us. Changes nothing yet.
Result<std::unique_ptr<ProbeEngine>> open_kvm_engine(const EngineSetting& setting);
/// Their errors, as far as they can be known without loading anything or disturbing the guest.
Result<void> check_gdbstub_engine(const VmInfo& vm);
Result<void> check_kvm_engine(const VmInfo& vm);

struct EngineStatus {
  std::string_view name;  // "kvm"
  std::string_view what;  // one line
  std::string_view cost;  // one line: what a hit costs the guest
  bool usable = false;
  std::string reason;  // why not
  std::string hint;    // what to do about it
};
/// Every engine, in the order in which "auto" tries them, and whether it works for this VM. Trying does not
/// disturb the guest.
std::vector<EngineStatus> engine_status(const Vm& vm);

/// The names of all engines, in the order in which "auto" tries them.
std::vector<std::string_view> engine_names();
/// By name, or the first that works ("auto"). usage for a name that is none; else why not.
Result<std::unique_ptr<ProbeEngine>> open_engine(const EngineSetting& setting,
                                                 std::string_view name = "auto");

// ---- for users of the library --------------------------------------------------------------

/// An argument or a result, by name and type.
struct ProbeArgument {
  std::string_view name, type;  // "filename", "const char *"; no type: ""
  bool known = false;           // it could be read
  std::uint64_t number = 0;     // extended to 64 bits by its type
  bool is_signed = false;
  bool is_pointer = false;
  bool is_text = false;                   // a string; else `bytes` name what the pointer points to
  std::optional<std::string_view> bytes;  // the guest's raw bytes
  std::string_view structure;             // "struct open_how" of a pointer to one, else ""
  std::string text;  // for people: "O_RDONLY|O_CLOEXEC", "\"/etc/passwd\"", "-2 (ENOENT)"
  std::string
      names;  // of the number: an enumerator, flags, of a result its error; "" if it has none
  bool unused = false;  // the system call does not look at it: open()'s mode without O_CREAT
  bool cut = false;     // `bytes` go on in the guest
};

/// What a handler gets. Valid until it returns.
struct ProbeEvent {
  const Hit& hit;
  const ProbeSite& site;
  std::string_view function;  // "do_sys_openat2"; of a system call's wrapper "openat"
  std::optional<std::int64_t> system_call;
  std::string_view abi;  // of a system call: "i386", "x32"; "" of 64-bit programs
  std::span<const ProbeArgument> arguments;
  const ProbeArgument* result = nullptr;
  /// Guest memory now. It is as it was at the hit if the request asked for a standing guest and
  /// the engine can do that.
  Reader& memory;
};
using ProbeHandler = std::function<void(const ProbeEvent& event)>;

struct ProbeRequest {
  std::string site;                 // as for parse_site()
  std::string filter;               // "pid == 12 && filename == \"/etc/passwd\"", "" for none
  std::optional<std::int32_t> pid;  // of this process only; needed for user sites without a path
  std::uint8_t text_arguments =
      0;  // of user functions, whose types are not known: a bit for each that is a text
  std::vector<std::string> without;  // functions that a pattern does not stand for
  /// On the host: user programs of which the guest does not have in memory what tells functions. The first that is
  /// the same build as the guest's file counts.
  std::vector<std::string> symbols_files;
  bool counts_only = false, standing = false;  // as in ProbeOrder
  std::uint64_t rate_limit = 0, storm_limit = default_storm_limit;
  /// A site whose function has nothing of a name in the filter is left out. Patterns always do so.
  bool where_filter_fits = false;
};

struct ProbeInfo {
  ProbeId id = 0;
  ProbeSite site;
  std::string problem;  // why arguments are not known by name, "" if they are
  std::string ended;    // why it is armed no more, "" if it is: its module was unloaded
  ProbeCounts counts;
};

/// Probes in one VM by one engine. Not thread safe; destroying it disarms everything.
class Prober {
 public:
  static Result<std::unique_ptr<Prober>> open(const EngineSetting& setting,
                                              std::string_view engine = "auto");
  virtual ~Prober() = default;
  virtual EngineAbilities abilities() const = 0;

  /// Finds the sites without arming anything: what a pattern stands for.
  virtual Result<std::vector<ProbeSite>> find(const ProbeRequest& request) = 0;
  /// Arms the sites of all requests under one pause; all or none. A pattern makes many probes. With engine
  /// "auto", and nothing armed yet, what user sites the cheapest engine cannot arm go to one that can.
  virtual Result<std::vector<ProbeId>> add(std::span<const ProbeRequest> requests,
                                           ProbeHandler handler) = 0;
  virtual Result<void> remove(std::span<const ProbeId> ids) = 0;
  virtual Result<std::vector<ProbeInfo>> list() = 0;
  /// Calls handlers until nothing came for `patience`, or what had come is told; how many there were.
  virtual Result<std::size_t> poll(std::chrono::milliseconds patience) = 0;
  /// Disarms all and tells what had come until then: list() has the last counts.
  virtual Result<void> finish() = 0;
  virtual std::uint64_t foreign() const = 0;
  virtual std::uint64_t late() const = 0;
  /// Why it is not the engine that "auto" takes first, "" if it is.
  virtual std::string engine_note() const = 0;
  /// Of a pattern's functions those that the engine cannot probe are left out: how many, and why the first.
  virtual std::string left_out_note() const = 0;
};

}  // namespace vmsight
