#include "state/os.h"

#include <fmt/format.h>

#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_command_line = 64 * 1024;
constexpr std::uint64_t ns_per_second = 1'000'000'000;
// A clock beyond this is no clock: 2^63 ns.
constexpr std::uint64_t max_uptime_ns = 1ULL << 63;

/// Where the core timekeeper lies. Newer kernels have an array of struct tk_data; in older ones
/// it follows a sequence counter in an anonymous structure that no type describes. The counter
/// (seqcount_raw_spinlock) is 4 bytes, or 16 with the lock pointer of PREEMPT_RT.
GuestVirt find_timekeeper(Members& members) {
  Kernel& kernel = members.kernel();
  if (const auto data = kernel.symbol("timekeeper_data")) {
    return *data + members.offset("tk_data", "timekeeper");
  }
  const std::uint64_t counter = kernel.type_size("seqcount_raw_spinlock").value_or(4);
  return members.symbol("tk_core") + ((counter + 7) & ~7ULL);
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
  self.timekeeper_ = find_timekeeper(members);
  self.base_ = members.offset("timekeeper", "tkr_mono.base");
  self.nsec_ = members.offset("timekeeper", "tkr_mono.xtime_nsec");
  self.shift_ = members.offset("timekeeper", "tkr_mono.shift");
  self.offs_boot_ = members.offset("timekeeper", "offs_boot");
  self.offs_real_ = members.offset("timekeeper", "offs_real");
  self.command_line_ = members.symbol("saved_command_line");
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void OsReader::read(Context& context) const {
  read_names(context);
  read_uptime(context);
  read_command_line(context);
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

void OsReader::read_uptime(Context& context) const {
  Reader& reader = context.reader;
  reader.clear_fault();
  const std::uint64_t ns =
      boot_time_ns(reader.u64(timekeeper_ + base_), reader.u64(timekeeper_ + nsec_),
                   reader.u32(timekeeper_ + shift_), reader.u64(timekeeper_ + offs_boot_));
  // Both offsets are from the monotonic clock: their difference is the wall clock at boot.
  const std::uint64_t boot =
      reader.u64(timekeeper_ + offs_real_) - reader.u64(timekeeper_ + offs_boot_);
  if (reader.ok() && ns < max_uptime_ns) {
    context.state.os.uptime_s = ns / ns_per_second;
    context.state.os.boot_unix_ns = static_cast<std::int64_t>(boot);
    return;
  }
  context.state.os.uptime_s.reset();
  context.state.os.boot_unix_ns.reset();
  context.state.problem("os", fmt::format("uptime: no clock at {}", timekeeper_));
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
