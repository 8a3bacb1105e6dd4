#include "state/cpus.h"

#include <fmt/format.h>

#include "state/members.h"

namespace vmsight {
namespace {

/// A string member, or what /proc/cpuinfo says if it is empty.
std::string_view read_text(Context& context, GuestVirt at, const Member& member) {
  const std::span<char> room = context.arena().allocate(std::min(member.size, 256U));
  const std::string_view text = context.reader.c_string(at + member.offset, room);
  const std::string_view kept = context.arena().shrink(room, text.size());
  if (!context.reader.ok()) return {};
  return kept.empty() ? std::string_view("unknown") : kept;
}

}  // namespace

Result<CpusReader> CpusReader::resolve(Kernel& kernel) {
  Members members(kernel);
  CpusReader self;
  self.present_ = members.symbol("__cpu_present_mask");
  self.online_ = members.symbol("__cpu_online_mask");
  self.info_ = members.symbol("cpu_info");
  self.khz_ = members.symbol("cpu_khz");
  self.vendor_ = members.member("cpuinfo_x86", "x86_vendor_id");
  self.model_ = members.member("cpuinfo_x86", "x86_model_id");
  self.cache_ = members.offset("cpuinfo_x86", "x86_cache_size");
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void CpusReader::read(Context& context) const {
  for (std::size_t cpu = 0; cpu < context.kernel.per_cpu_offsets().size(); ++cpu) {
    context.reader.clear_fault();
    const bool present = in_mask(context.reader, present_, cpu);
    if (present || !context.reader.ok()) read_cpu(context, cpu);
  }
  context.reader.clear_fault();
}

bool CpusReader::in_mask(Reader& reader, GuestVirt mask, std::size_t cpu) {
  return (reader.u64(mask + cpu / 64 * 8) >> (cpu % 64) & 1) != 0;
}

void CpusReader::read_cpu(Context& context, std::size_t cpu) const {
  Reader& reader = context.reader;
  const GuestVirt info = context.kernel.per_cpu(info_, cpu);
  CpuInfo record;
  record.cpu = static_cast<unsigned>(cpu);
  record.online = in_mask(reader, online_, cpu);
  record.vendor = read_text(context, info, vendor_);
  record.model_name = read_text(context, info, model_);
  // The clock of all CPUs unless the guest sees APERF/MPERF, which virtual machines do not.
  const std::uint32_t khz = reader.u32(khz_);
  const std::uint32_t cache = reader.u32(info + cache_);
  if (reader.ok()) {
    if (khz != 0) record.mhz = khz / 1000.0;
    if (cache != 0) record.cache_kib = cache;
  } else {
    context.state.problem(
        "cpus", fmt::format("cpu {}: {} is not readable", cpu, reader.fault().value_or(info)));
  }
  context.state.cpus.push_back(record);
}

}  // namespace vmsight
