// Probes: a handler is called each time a running guest passes a place in its code, with what its
// vCPU knew there.
//
//   text "kprobe:vfs_read" -> Site -> ProbeSite (an address) -> armed -> ProbeEvent -> handler
//
// Prober is the door. Behind it are engines, the ways to arm a site: what each of them can do with
// a VM is told by EngineAbilities.
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

#include "vmsight/halt.h"
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

/// One passing of a probe.
struct ProbeHit {
  ProbeId probe = 0;
  bool at_return = false;
  std::uint64_t time_ns = 0;      // the host's monotonic clock
  std::uint64_t duration_ns = 0;  // at a return: since the entry
  unsigned vcpu = 0;              // QEMU's number of it
  ProbeRegisters registers;
  ProbeTask task;  // at a return: as it was at the entry, before the call gave it another name
};

struct ProbeCounts {
  std::uint64_t hits = 0;            // at a return: returns; of the processes that the site names
  std::uint64_t filtered = 0;        // of these: the filter said no
  std::uint64_t told = 0;            // handed to the handler
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

// ---- engines -------------------------------------------------------------------------------

/// What an engine can do with a VM. Ask this, not its name.
struct EngineAbilities {
  std::string_view name;         // "gdbstub", "kvm": for people, and to be asked for
  bool any_instruction = false;  // else only where functions begin
  bool user_sites = false;       // programs of the guest, too
  bool return_sites = false;     // functions are seen to return
  /// Each hit halts the guest, for as long as its handler runs if the request asks for that
  /// (ProbeRequest::standing). Else vCPUs go on at once, and handlers are called later.
  bool stops_guest = false;
  bool refuses_calls = false;  // a handler can have a function return at once (ProbeEvent::refusal)
  std::size_t max_sites = 0;   // armed at once; 0: no limit worth naming
};

struct EngineStatus {
  EngineAbilities abilities;  // what it can do with this VM, if it is usable
  std::string_view what;      // one line
  std::string_view cost;      // one line: what a hit costs the guest
  bool usable = false;
  std::string reason;  // why not
  std::string hint;    // what to do about it
};
/// Every engine, in the order in which "auto" tries them, and whether it works for this VM. Trying does not
/// disturb the guest.
std::vector<EngineStatus> engine_status(const Vm& vm);

/// The names of all engines, in the order in which "auto" tries them.
std::vector<std::string_view> engine_names();

// ---- requests and events -------------------------------------------------------------------

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
  const ProbeHit& hit;
  const ProbeSite& site;
  std::string_view function;  // "do_sys_openat2"; of a system call's wrapper "openat"
  std::optional<std::int64_t> system_call;
  std::string_view abi;  // of a system call: "i386", "x32"; "" of 64-bit programs
  std::span<const ProbeArgument> arguments;
  const ProbeArgument* result = nullptr;
  /// Where the guest stands at the entry of a kernel function, and the engine can do it: what the handler puts here
  /// is returned to the caller at once, and the function does not run. Else nullptr.
  std::optional<std::int64_t>* refusal = nullptr;
  /// Guest memory now. It is as it was at the hit if the request asked for a standing guest and
  /// the engine stops it.
  Reader& memory;
};
/// It must not call the Prober: only poll() and finish() call it, and they are not done yet.
using ProbeHandler = std::function<void(const ProbeEvent& event)>;

inline constexpr std::uint64_t default_storm_limit = 500'000;

/// A value of one's own at each hit: a name, and a C expression over the function's arguments by their types,
/// "iocb->ki_filp->f_inode->i_ino", "((struct packet_sock *)sk)->tp_version", "current->cred->user_ns".
struct ProbeField {
  std::string name, expression;
};

struct ProbeRequest {
  std::string site;                 // as for parse_site()
  std::string filter;               // "pid == 12 && filename == \"/etc/passwd\"", "" for none
  std::vector<ProbeField> fields;   // are told behind the arguments, and as these
  std::optional<std::int32_t> pid;  // of this process only; needed for user sites without a path
  std::uint8_t text_arguments =
      0;  // of user functions, whose types are not known: a bit for each that is a text
  std::vector<std::string> without;  // functions that a pattern does not stand for
  /// On the host: user programs of which the guest does not have in memory what tells functions. The first that is
  /// the same build as the guest's file counts.
  std::vector<std::string> symbols_files;
  bool counts_only = false;  // no handler is called, only counts grow
  /// The handler is called while the guest stands, where the engine stops it at hits.
  bool standing = false;
  std::uint64_t rate_limit = 0;  // hits a second that are told; 0: all
  /// Hits a second that the guest can be asked to bear, where the engine does not stop it. A probe that is hit
  /// more often is disarmed (ProbeCounts::stormed). An exit to the host takes 0.5 to 2 us: the default is
  /// about half a CPU or more.
  std::uint64_t storm_limit = default_storm_limit;
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

/// What probes are opened with. VM, kernel and memory must outlive the Prober.
struct ProbeSetting {
  const Vm& vm;
  Kernel& kernel;
  /// Live, and read without the guest or QEMU (ViewNature::passive): they may stand at a hit. Nobody else
  /// may use it while the Prober works, which begins views of it.
  GuestMemory& memory;
  std::string engine = "auto";  // or one of engine_names()
  /// How long the guest may be halted at most: while probes are armed, and at each hit of an engine that stops it.
  std::chrono::milliseconds max_halt = default_max_halt;
};

/// Probes in one VM by one engine. Not thread safe; destroying it disarms everything.
class Prober {
 public:
  /// Changes nothing in the guest yet. usage for an engine that is none; unsupported or permission, with the
  /// reason and a hint, if the engine (of "auto" the last) cannot be used here, or the memory cannot.
  static Result<std::unique_ptr<Prober>> open(const ProbeSetting& setting);
  virtual ~Prober() = default;
  virtual EngineAbilities abilities() const = 0;

  /// Finds the sites without arming anything: what a pattern stands for. usage for a text that is no site;
  /// not_found, naming what is missing.
  virtual Result<std::vector<ProbeSite>> find(const ProbeRequest& request) = 0;
  /// Arms the sites of all requests under one pause; all or none. A pattern makes many probes. With engine
  /// "auto", and nothing armed yet, what user sites the cheapest engine cannot arm go to one that can. Errors
  /// of find(); usage for a filter that makes no sense; unsupported, naming the site and the reason; vm_gone.
  virtual Result<std::vector<ProbeId>> add(std::span<const ProbeRequest> requests,
                                           ProbeHandler handler) = 0;
  /// Disarms them under one pause; an id that is none of ours is no error.
  virtual Result<void> remove(std::span<const ProbeId> ids) = 0;
  virtual Result<std::vector<ProbeInfo>> list() = 0;
  /// Calls handlers until nothing came for `patience`, or what had come is told; how many there were. vm_gone
  /// if the VM has ended, or runs another kernel than the probes were armed in.
  virtual Result<std::size_t> poll(std::chrono::milliseconds patience) = 0;
  /// Disarms all and tells what had come until then: list() has the last counts.
  virtual Result<void> finish() = 0;
  /// Traps that belong to no probe of ours: forged by the guest, or left from before.
  virtual std::uint64_t foreign() const = 0;
  /// Events that were told after later ones: they had come too late to be put in order.
  virtual std::uint64_t late() const = 0;
  /// Why the engine is another than the one that "auto" took first: what that one cannot do. "" if it is the same.
  virtual std::string engine_note() const = 0;
  /// Of a pattern's functions those that the engine cannot probe are left out: how many, and why the first.
  virtual std::string left_out_note() const = 0;
};

}  // namespace vmsight
