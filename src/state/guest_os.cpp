#include "state/guest_os.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <utility>

#include "state/members.h"
#include "state/retry.h"

namespace vmsight {
namespace {

constexpr std::size_t max_command_line = 64 * 1024;
constexpr std::uint64_t ns_per_second = 1'000'000'000;
// A clock beyond this is no clock: 2^63 ns.
constexpr std::uint64_t max_uptime_ns = 1ULL << 63;
constexpr std::uint64_t max_pages = 1ULL << 40;  // 4 PiB

template <typename Value>
Value value_at(std::span<const std::byte> bytes, std::uint64_t offset) {
  Value value{};
  if (offset <= bytes.size() - sizeof(value))
    std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

}  // namespace

std::uint64_t boot_time_ns(std::uint64_t base, std::uint64_t shifted_nsec, unsigned shift,
                           std::uint64_t offs_boot) {
  return base + (shift < 64 ? shifted_nsec >> shift : 0) + offs_boot;
}

Result<OsReader> OsReader::resolve(Kernel& kernel) {
  Members members(kernel);
  OsReader self;
  self.names_ = members.symbol("init_uts_ns") + members.offset("uts_namespace", "name");
  self.sysname_ = members.member("new_utsname", "sysname");
  self.nodename_ = members.member("new_utsname", "nodename");
  self.release_ = members.member("new_utsname", "release");
  self.version_ = members.member("new_utsname", "version");
  self.machine_ = members.member("new_utsname", "machine");
  self.resolve_clock(members);
  self.command_line_ = members.symbol("saved_command_line");
  self.total_pages_ = members.find_symbol("_totalram_pages");
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

/// Where the core timekeeper lies. Newer kernels have an array of struct tk_data; in older ones
/// it follows a sequence count in an anonymous structure that no type describes. The count
/// (seqcount_raw_spinlock, which begins with it) is 4 bytes, or 16 with the lock pointer of PREEMPT_RT.
void OsReader::resolve_clock(Members& members) {
  Kernel& kernel = members.kernel();
  std::uint32_t timekeeper = 0;
  if (const auto data = kernel.symbol("timekeeper_data")) {
    const std::uint32_t count = members.offset("tk_data", "seq");
    clock_ = *data + count;
    timekeeper = members.offset("tk_data", "timekeeper") - count;
  } else {
    clock_ = members.symbol("tk_core");
    timekeeper = (kernel.type_size("seqcount_raw_spinlock").value_or(4) + 7) & ~7U;
  }
  base_ = timekeeper + members.offset("timekeeper", "tkr_mono.base");
  nsec_ = timekeeper + members.offset("timekeeper", "tkr_mono.xtime_nsec");
  shift_ = timekeeper + members.offset("timekeeper", "tkr_mono.shift");
  offs_boot_ = timekeeper + members.offset("timekeeper", "offs_boot");
  offs_real_ = timekeeper + members.offset("timekeeper", "offs_real");
}

void OsReader::read(Context& context) const {
  read_names(context);
  read_uptime(context);
  read_command_line(context);
  read_memory_size(context);
}

/// As si_meminfo(): what the kernel has to give, its own text and tables not counted.
void OsReader::read_memory_size(Context& context) const {
  OsInfo& os = context.state.os;
  os.memory_bytes.reset();
  if (total_pages_.raw() == 0) return;
  context.reader.clear_fault();
  const std::uint64_t pages = context.reader.u64(total_pages_);
  if (context.reader.ok() && pages < max_pages) os.memory_bytes = pages * page_size;
}

void OsReader::read_names(Context& context) const {
  const auto name = [&](const Member& member) -> std::string_view {
    context.reader.clear_fault();
    const std::span<char> room = context.arena().allocate(std::min(member.size, 65U));
    const std::string_view text = context.reader.c_string(names_ + member.offset, room);
    const std::string_view kept = context.arena().shrink(room, text.size());
    if (context.reader.ok()) return kept;
    context.state.problem("os", fmt::format("uname: {} is not readable", names_ + member.offset));
    return {};
  };
  OsInfo& os = context.state.os;
  os.sysname = name(sysname_);
  os.nodename = name(nodename_);
  os.release = name(release_);
  os.version = name(version_);
  os.machine = name(machine_);
}

OsReader::ClockReading OsReader::read_clock(GuestMemory& memory, const AddressSpace& space,
                                            ClockBytes& bytes) const {
  // The count, what it guards, and the count again, in this order. In one call: a guest ticks hundreds of times a
  // second, and a slow agent needs longer for two. (Where reads are merged into one copy only an odd count tells.)
  std::uint32_t again = 0;
  const std::size_t first = std::min<std::size_t>(bytes.size(), page_size - clock_.page_offset());
  const auto start = space.translate(memory, clock_);
  const auto rest = first < bytes.size() ? space.translate(memory, clock_ + first) : start;
  if (!start || !rest) return ClockReading::failed;
  FreshRead reads[] = {{*start, std::as_writable_bytes(std::span(bytes)).first(first)},
                       {*start, std::as_writable_bytes(std::span(&again, 1))},
                       {*rest, std::as_writable_bytes(std::span(bytes)).subspan(first)}};
  std::size_t count = 2;
  if (first < bytes.size()) {
    std::swap(reads[1], reads[2]);
    count = 3;
  }
  if (!memory.read_fresh(std::span(reads).first(count))) return ClockReading::failed;
  for (const FreshRead& read : std::span(reads).first(count)) {
    if (!read.ok) return ClockReading::failed;
  }
  const bool whole = again % 2 == 0 && value_at<std::uint32_t>(bytes, 0) == again;
  return whole ? ClockReading::whole : ClockReading::torn;
}

void OsReader::read_uptime(Context& context) const {
  GuestMemory& memory = context.reader.memory();
  ClockBytes bytes{};
  ClockReading reading = read_clock(memory, context.kernel.space(), bytes);
  // A vCPU that is not running may stand in the middle of its tick.
  for (unsigned i = 1;
       reading == ClockReading::torn && memory.is_live() && i < context.options.attempts; ++i) {
    prepare_retry(context, i);
    reading = read_clock(memory, context.kernel.space(), bytes);
  }
  const auto offs_boot = value_at<std::uint64_t>(bytes, offs_boot_);
  const std::uint64_t ns =
      boot_time_ns(value_at<std::uint64_t>(bytes, base_), value_at<std::uint64_t>(bytes, nsec_),
                   value_at<std::uint32_t>(bytes, shift_), offs_boot);
  OsInfo& os = context.state.os;
  os.uptime_s.reset();
  os.boot_unix_ns.reset();
  os.unix_ns.reset();
  if (reading == ClockReading::failed || ns >= max_uptime_ns) {
    context.state.problem("os", fmt::format("uptime: no clock at {}", clock_));
    return;
  }
  if (reading == ClockReading::torn && memory.is_live()) {
    context.state.problem("os", fmt::format("uptime: the clock at {} never stood still", clock_));
    return;
  }
  os.uptime_s = ns / ns_per_second;
  // Both offsets are from the monotonic clock: their difference is the wall clock at boot.
  os.boot_unix_ns =
      static_cast<std::int64_t>(value_at<std::uint64_t>(bytes, offs_real_) - offs_boot);
  os.unix_ns = static_cast<std::int64_t>(static_cast<std::uint64_t>(*os.boot_unix_ns) + ns);
}

void OsReader::read_command_line(Context& context) const {
  Reader& reader = context.reader;
  reader.clear_fault();
  const GuestVirt text = reader.pointer(command_line_);
  const std::span<char> room = context.arena().allocate(max_command_line);
  const std::string_view line = reader.c_string(text, room);
  const std::string_view kept = context.arena().shrink(room, line.size());
  if (reader.ok()) {
    context.state.os.cmdline = kept;
    return;
  }
  context.state.os.cmdline = {};
  context.state.problem("os", fmt::format("cmdline: {} is not readable", text));
}

}  // namespace vmsight
