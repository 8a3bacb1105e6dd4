// What is in a running kernel: the state document as plain structures.
//
// Strings are views into the State's own arena and hold the guest's raw bytes, which may be
// anything: renderers escape them. A string_view with data() == nullptr, and an empty optional,
// mean "could not be read" (null in JSON); `problems` says why. Nothing here changes the guest.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/memory.h"
#include "vmsight/result.h"

namespace VMSIGHT_PUBLIC vmsight {

/// A bump allocator: strings live as long as it does. clear() keeps its first blocks for reuse.
class Arena {
 public:
  std::span<char> allocate(std::size_t size);
  /// Gives back the unused tail of the last allocation.
  std::string_view shrink(std::span<char> last, std::size_t used);
  std::string_view copy(std::string_view text);
  void clear();
  std::size_t bytes() const { return total_; }

 private:
  static constexpr std::size_t block_size = 256 * 1024;
  struct Block {
    std::unique_ptr<char[]> data;
    std::size_t size = 0;
  };
  std::vector<Block> blocks_;
  std::size_t block_ = 0, used_ = 0, total_ = 0;
};

enum class Validity : std::uint8_t { live, fresh, zombie, dying, as_good_as_dead, torn };
std::string_view to_string(Validity validity);  // "live" ... "as-good-as-dead", "torn"

struct OsInfo {
  std::string_view sysname, nodename, release, version, machine;
  std::optional<std::uint64_t> uptime_s;
  std::string_view cmdline;
  std::optional<std::int64_t> boot_unix_ns;   // the guest's wall clock at its boot, if readable
  std::optional<std::int64_t> unix_ns;        // ... at the moment of the view
  std::optional<std::uint64_t> memory_bytes;  // MemTotal of /proc/meminfo
};

/// A cache that a CPU uses, as /sys/devices/system/cpu/cpuN/cache/indexM shows it.
struct CpuCache {
  unsigned level = 0;
  std::string_view type;  // "Data" "Instruction" "Unified"
  std::uint64_t size_bytes = 0;
  unsigned ways = 0, sets = 0, line_bytes = 0;
  std::vector<unsigned> cpus;  // those that share it, ascending
};

struct CpuInfo {
  unsigned cpu = 0;
  std::string_view vendor, model_name;
  std::optional<double> mhz;
  std::optional<std::uint64_t> cache_kib;
  bool online = false;
  std::optional<unsigned> family, model, stepping;
  std::optional<unsigned> socket, core, node;  // physical package, core in it, NUMA node
  std::optional<double> bogomips;
  unsigned physical_bits = 0, virtual_bits = 0;  // of addresses
  std::vector<std::string_view> flags, bugs;     // in the order of /proc/cpuinfo
  std::vector<CpuCache> caches;
};

/// An address of a network device, in the words of `ip addr`.
struct NetAddress {
  std::string_view family;  // "inet", "inet6"
  std::string_view local;   // "10.8.0.1"
  unsigned prefix = 0;
  std::string_view peer, broadcast;     // "" if it has none
  std::string_view scope;               // "global", "link", "host" ...
  std::string_view label;               // of IPv4, else ""
  std::vector<std::string_view> flags;  // "secondary", "tentative", "dynamic" ...
  /// In seconds, 2^32 - 1 for ever.
  std::optional<std::uint32_t> valid_life_time, preferred_life_time;
};

struct NetDevice {
  std::string_view name;
  std::uint64_t netns = 0;
  std::string_view hwaddr;              // "52:54:00:12:34:56", "" if it has none
  std::vector<std::string_view> flags;  // "UP", "BROADCAST", "LOOPBACK", "LOWER_UP" ...
  std::uint64_t mtu = 0;
  unsigned ifindex = 0;
  std::vector<std::string_view> ipv4, ipv6;  // "10.0.2.15/24"
  std::optional<std::uint64_t> rx_bytes, tx_bytes, rx_packets, tx_packets;
  std::vector<NetAddress> addresses;  // those of ipv4 and ipv6, with all that is known of them
  std::string_view link_type;         // "ether", "loopback", "ipip", "none" ...
  std::string_view operstate;         // "UP", "DOWN", "UNKNOWN" ...
  std::string_view linkmode;          // "DEFAULT", "DORMANT"
  std::string_view broadcast;         // of the hardware; of a point-to-point link, its peer
  std::string_view kind;              // "vlan", "veth" ..., "" for hardware
  std::string_view qdisc, alias;      // "" if it has none
  std::vector<std::string_view> alternative_names;
  std::uint32_t tx_queue_length = 0, group = 0;
  unsigned master_index = 0;  // of the bridge or bond it is a port of, 0 if of none
  std::string_view master;
  /// The device it works on, or its other end: its own index if there is none, as sysfs has it;
  /// 0 if it is bound to none. The name is known if it is in the same network namespace.
  std::optional<unsigned> link_index;
  std::string_view link;
  std::optional<std::uint64_t> link_netns;   // if another namespace than its own
  std::optional<std::int32_t> link_netnsid;  // what that is called in its own, if it has a number
};

struct Module {
  std::string_view name;
  std::string_view state;  // "Live", "Loading", "Unloading"
  std::uint64_t size = 0;
  std::int64_t refcount = 0;
  std::vector<std::string_view> used_by;  // names, in /proc/modules order
  GuestVirt base;
};

/// What stat(2) says of a file.
struct FileFacts {
  std::string_view type;  // as that of an OpenFile
  std::uint64_t inode = 0, device = 0, size = 0;
  std::uint64_t rdev = 0;  // the device that a CHR or BLK file stands for
  std::uint32_t links = 0;
};

struct Process {
  std::int32_t pid = 0, tgid = 0, ppid = 0;  // in the root pid namespace
  std::string_view comm;                     // whole: kernel threads as /proc shows them
  std::optional<std::vector<std::string_view>> cmdline;
  char state = '?';  // R S D T t Z X I P
  std::optional<std::uint32_t> uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
  bool kernel_thread = false;
  std::optional<std::uint32_t> threads;
  std::uint64_t start_time_ns = 0, utime_ns = 0, stime_ns = 0;  // of the whole thread group
  std::optional<std::uint64_t> rss_bytes, vsize_bytes;          // nullopt: no mm, or unread
  std::string_view exe, cwd, root;  // null if there is none, or it was not readable
  std::optional<std::uint64_t> pidns, mntns, netns, utsns;
  std::vector<std::int32_t> ns_pids;  // from the root namespace inwards
  std::int32_t tty_nr = 0, session = 0, pgrp = 0;
  std::int32_t nice = 0, priority = 0, cpu = -1;
  Validity validity = Validity::live;
  GuestVirt task;           // its task_struct
  std::uint32_t flags = 0;  // PF_*, field 9 of /proc/PID/stat
  std::int32_t tpgid = -1;  // foreground process group of its terminal, -1 if it has none
  std::uint32_t policy = 0, rt_priority = 0;
  std::optional<std::uint64_t> locked_bytes;  // VmLck; nullopt: no mm, or unread
  std::optional<FileFacts> exe_file, cwd_file, root_file;
  std::vector<std::string_view> cgroups;  // lines of /proc/PID/cgroup; empty: not read
};

struct Thread {
  std::int32_t pid = 0, tgid = 0;
  std::string_view comm;
  char state = '?';
  std::int32_t cpu = -1;
  GuestVirt task, stack;
  std::optional<std::uint32_t> uid, gid, euid, egid;
  std::uint64_t start_time_ns = 0, utime_ns = 0, stime_ns = 0;
  std::int32_t nice = 0, priority = 0;
  std::uint32_t policy = 0, rt_priority = 0, flags = 0;
  std::string_view cwd, root;  // threads may stand in directories of their own
  std::int32_t files_of = 0;   // the `tid` of its open files; 0: it has no descriptor table
};

struct OpenFile {
  std::int32_t pid = 0;
  std::int32_t fd = 0;
  std::string_view type;  // "REG" "DIR" "CHR" "BLK" "FIFO" "SOCK" "ANON" "LNK"
  std::string_view path;  // as readlink of /proc/PID/fd/N
  std::uint64_t pos = 0;
  std::uint32_t flags = 0;  // as fdinfo: O_CLOEXEC included
  std::uint64_t inode = 0, device = 0;
  std::uint64_t size = 0;
  /// The first thread that uses the descriptor table: the process itself (pid), unless its main
  /// thread has ended, or a thread has a table of its own.
  std::int32_t tid = 0;
  std::uint64_t rdev = 0;  // the device that a CHR or BLK file stands for
  std::uint32_t links = 0;
  /// A lock that the process holds on it, in the letters of lsof: R and W on the whole file for
  /// reading and writing, r and w on a part of it; 0 for none.
  char lock = 0;
  /// What stands in the brackets of an anonymous file: the descriptors that an epoll watches,
  /// ascending; the PID of a pidfd; the number of an eventfd.
  std::vector<std::int32_t> targets;
};

struct MemoryMap {
  std::int32_t pid = 0;
  std::uint64_t start = 0, end = 0, offset = 0;
  char perms[5] = "----";  // "r-xp"
  std::string_view path;   // as /proc/PID/maps; "" for anonymous
  std::uint64_t inode = 0, device = 0;
  std::optional<std::uint64_t> rss_bytes, dirty_bytes;  // if asked for: of /proc/PID/smaps
  std::string_view type;                                // of the file, as that of an OpenFile
  std::uint64_t size = 0;                               // of the file
  std::uint32_t links = 0;
};

struct Socket {
  std::optional<std::int32_t> pid, fd;  // empty: owned by no process (TIME_WAIT, kernel)
  std::uint64_t netns = 0;
  std::string_view family;         // "inet" "inet6" "unix" "netlink" "packet" ...
  std::string_view protocol;       // "tcp" "udp" "udplite" "icmp" "raw" "unix" ...
  std::string_view type;           // "stream" "dgram" "seqpacket" "raw" ...
  std::string_view state;          // "ESTABLISHED" "LISTEN" "UNCONN" ...
  std::string_view local, remote;  // addresses; unix: path ("@name" if abstract)
  std::uint32_t local_port = 0, remote_port = 0;
  std::uint64_t inode = 0;
  std::uint64_t recv_queue = 0, send_queue = 0;
  std::optional<std::uint32_t> uid;
  std::uint64_t peer_inode = 0;     // unix sockets
  std::optional<std::int32_t> tid;  // with pid and fd: the `tid` of the open file
  /// IPPROTO_*; of packet sockets the Ethernet type, of netlink sockets the protocol.
  std::uint32_t protocol_number = 0;
  unsigned ifindex = 0;              // of the device it is bound to, 0 if to none
  std::string_view device;           // its name, "" if there is no such device
  std::optional<bool> v6only;        // of inet6 sockets
  std::optional<unsigned> shutdown;  // 1: reads are, 2: writes are shut down; of whole sockets
  std::uint32_t groups = 0;          // netlink: the first 32 multicast groups
  /// `skmem` of ss(8): bytes that are queued, what may be, and packets dropped.
  struct Memory {
    std::uint32_t receive = 0, receive_buffer = 0, transmit = 0, send_buffer = 0;
    std::uint32_t forward = 0, write_queued = 0, options = 0, backlog = 0, drops = 0;
  };
  std::optional<Memory> memory;  // of whole sockets
};

struct Mount {
  std::string_view source, target, fstype, options;
  std::uint64_t mntns = 0;
  std::uint32_t id = 0, parent = 0;
  std::uint64_t device = 0;                        // major << 20 | minor, as the kernel's dev_t
  std::string_view root;                           // root of the mount within its file system
  std::string_view super_options;                  // of the file system: "rw,size=4096k"
  std::string_view propagation;                    // "shared", "private", "private,slave" ...
  std::uint32_t peer_group = 0, master_group = 0;  // 0 if it is not shared, or no slave
  std::uint32_t propagate_from = 0;  // the nearest dominating group under the root, else 0
};

/// A control group. Of the root of a hierarchy nothing is limited or counted.
struct Cgroup {
  std::uint32_t hierarchy = 0;                // as in /proc/PID/cgroup; 0: the unified one, v2
  std::string_view name;                      // of a named hierarchy ("systemd"), else ""
  std::string_view path;                      // "/system.slice/ssh.service"
  std::uint64_t id = 0;                       // inode of its directory
  std::vector<std::string_view> controllers;  // v2: those of cgroup.controllers
  // Empty: its hierarchy or its parent does not control it, and of limits: there is none.
  std::optional<std::uint64_t> memory_bytes, memory_min, memory_low, memory_high, memory_max;
  std::optional<std::uint64_t> swap_bytes, swap_max;
  std::optional<std::uint64_t> pids, pids_max;          // tasks in it and below
  std::optional<std::uint64_t> cpu_weight, cpu_shares;  // v2; v1
  std::optional<std::uint64_t> cpu_quota_ns, cpu_period_ns, cpu_usage_ns;
};

struct LogRecord {
  std::uint64_t time_ns = 0, sequence = 0;
  unsigned level = 0, facility = 0;
  std::string_view text;
};

struct Problem {
  std::string where, what;
  bool operator==(const Problem&) const = default;
};

/// Why all that a view shows was there at once. What moves all the time (clocks, times, counters of bytes and
/// pages) a proof leaves out: it is of some moment of the view.
enum class Consistency : std::uint8_t {
  none,      // each record may be of another moment
  proof,     // read twice from a running guest, and nothing had changed in between
  halt,      // the guest was halted
  snapshot,  // a copy of one moment was read, or an image
};
std::string_view to_string(Consistency consistency);

/// What a live view met because the guest ran, by class. Each was noticed, and read again or left out. A proven view,
/// which is read anew as a whole, and one of a halted guest meet none.
struct Inconsistencies {
  std::uint64_t list = 0;        // walks of the list of processes that did not hold together
  std::uint64_t died = 0;        // processes that were gone before all of their record was read
  std::uint64_t recycled = 0;    // ... and another one was in their place
  std::uint64_t changed = 0;     // processes that changed while they were read
  std::uint64_t unreadable = 0;  // ... that could not be followed to their end at first
  std::uint64_t torn = 0;        // of all these, those that never held still, and are shown as torn
  bool operator==(const Inconsistencies&) const = default;
};

struct ViewInfo {
  std::string technique;
  bool paused = false;
  Consistency consistency = Consistency::none;
  Inconsistencies inconsistencies{};
  std::string not_proven;  // why one that was to be proven is a halt: "sockets changed at gva:..."
  std::uint64_t start_ns = 0, duration_ns = 0;  // host's monotonic clock
  std::uint64_t bytes_read = 0, pages = 0, retries = 0;
  std::uint64_t pause_ns = 0;  // how long the guest was stopped for it, as the host saw it
};

/// Parts of the document; `read_state` reads those asked for, and what they depend on.
enum Part : unsigned {
  part_os = 1 << 0,
  part_cpus = 1 << 1,
  part_net_devices = 1 << 2,
  part_modules = 1 << 3,
  part_processes = 1 << 4,
  part_open_files = 1 << 5,
  part_memory_maps = 1 << 6,
  part_sockets = 1 << 7,
  part_mounts = 1 << 8,
  part_kernel_log = 1 << 9,
  part_threads = 1 << 10,              // only in documents that ask for it
  part_cgroups = 1 << 11,              // the groups, and of each process in which it is
  part_groups_of_processes = 1 << 12,  // the latter only
  part_all = ((1 << 10) - 1) | part_cgroups,
};

struct State {
  ViewInfo view;
  OsInfo os;
  std::vector<CpuInfo> cpus;
  std::vector<NetDevice> net_devices;
  std::vector<Module> modules;
  std::vector<Process> processes;
  std::vector<Thread> threads;
  std::vector<OpenFile> open_files;    // grouped by process and table, ascending fd
  std::vector<MemoryMap> memory_maps;  // grouped by process, ascending address
  std::vector<Socket> sockets;
  std::vector<Mount> mounts;
  std::vector<LogRecord> kernel_log;
  std::vector<Cgroup> cgroups;    // by hierarchy, parents before their children
  std::vector<Problem> problems;  // bounded: the last says how many were left out
  Arena arena;

  void clear();  // keeps allocations, for the next view
  void problem(std::string where, std::string what);
  std::size_t problems_left_out = 0;
};

struct StateOptions {
  unsigned parts = part_all;
  std::optional<std::int32_t> pid;    // only this process (thread group)
  unsigned max_processes = 1u << 22;  // the kernel's own limit of PIDs
  unsigned attempts = 3;              // readings of an object before it is called torn
  bool residency = false;             // walk page tables: how much of each map is in RAM
};

/// What StateReader::create_proven() tries before it takes the other memory.
struct ProofOptions {
  unsigned attempts = 16;                   // whole readings
  std::chrono::milliseconds patience{500};  // for all of them
};

/// Reads state through one kernel and one view, again and again. Keeps types and layout only:
/// nothing it learnt of the guest's state is reused by the next read.
class StateReader {
 public:
  /// Both must outlive it. unsupported, naming the structure, if a needed member is missing.
  static Result<std::unique_ptr<StateReader>> create(Kernel& kernel, GuestMemory& memory);
  /// Views of one moment, of a guest that runs on: the whole state is read from `live`, and again, until nothing
  /// has changed in between. When that does not come to be, from `otherwise`, whose views are of one moment; if
  /// that is nullptr, read() fails with `timeout`, and says what changed.
  static Result<std::unique_ptr<StateReader>> create_proven(Kernel& kernel, GuestMemory& live,
                                                            GuestMemory* otherwise,
                                                            const ProofOptions& options = {});
  virtual ~StateReader() = default;

  /// A new view: refreshes the memory, reads, verifies what may have changed meanwhile.
  /// vm_gone and os errors fail; everything else becomes a problem of the State.
  virtual Result<void> read(const StateOptions& options, State& into) = 0;
};

}  // namespace vmsight
