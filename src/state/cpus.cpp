#include "state/cpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

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

// enum cache_type of include/linux/cacheinfo.h
std::string_view cache_type(std::uint32_t type) {
  switch (type) {
    case 1:
      return "Instruction";
    case 2:
      return "Data";
    default:
      return "Unified";
  }
}

constexpr std::size_t max_words = 64;          // of capabilities; Linux 7.2 has 24
constexpr std::size_t max_details = 1U << 22;  // flags and CPUs of caches, of all CPUs
constexpr std::size_t max_leaves = 16;         // caches of a CPU
constexpr std::size_t max_cpus = 8192;         // NR_CPUS with CONFIG_MAXSMP
constexpr std::uint32_t max_node = 1024;       // MAX_NUMNODES

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
  self.resolve_details(kernel, members);
  self.resolve_caches(members);
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void CpusReader::resolve_details(Kernel& kernel, Members& members) {
  const auto member = [&](const char* name) {
    return kernel.member("cpuinfo_x86", name).value_or(Member{.size = 0});
  };
  family_ = member("x86");
  model_number_ = member("x86_model");
  stepping_ = member("x86_stepping");
  physical_bits_ = member("x86_phys_bits");
  virtual_bits_ = member("x86_virt_bits");
  capability_ = member("x86_capability");
  socket_ = members.find("cpuinfo_x86", {"topo.pkg_id", "phys_proc_id"});
  core_ = members.find("cpuinfo_x86", {"topo.core_id", "cpu_core_id"});
  loops_ = members.find("cpuinfo_x86", "loops_per_jiffy");
  if (capability_.size != 0) {
    flag_names_ = find_names(members, "x86_cap_flags");
    bug_names_ = find_names(members, "x86_bug_flags");
  }
  node_ = members.find_symbol("numa_node");
  jiffies_clock_ = members.find_symbol("clocksource_jiffies");
  clock_mult_ = members.find("clocksource", "mult");
  clock_shift_ = members.find("clocksource", "shift");
}

void CpusReader::resolve_caches(Members& members) {
  cache_info_ = members.find_symbol("ci_cpu_cacheinfo");
  if (cache_info_.raw() == 0) return;
  info_list_ = members.find("cpu_cacheinfo", "info_list");
  leaves_ = members.find("cpu_cacheinfo", "num_leaves");
  const auto of_leaf = [&](const char* name) { return members.find("cacheinfo", name); };
  at_ = {of_leaf("level"),
         of_leaf("type"),
         of_leaf("coherency_line_size"),
         of_leaf("number_of_sets"),
         of_leaf("ways_of_associativity"),
         of_leaf("size"),
         of_leaf("shared_cpu_map")};
  leaf_size_ = static_cast<std::uint32_t>(members.kernel().type_size("cacheinfo").value_or(0));
  for (const Offset offset :
       {leaves_, at_.level, at_.type, at_.line, at_.sets, at_.ways, at_.size, at_.cpus}) {
    if (offset == absent || leaf_size_ == 0) info_list_ = absent;
  }
}

/// A table of pointers to names, 32 for each word of capabilities. Where it ends no type tells, but
/// the kernel's symbols do.
CpusReader::NameTable CpusReader::find_names(Members& members, const char* symbol) {
  const GuestVirt start = members.find_symbol(symbol);
  const std::uint64_t size = members.kernel().symbol_size(symbol).value_or(0);
  return {start, std::min<std::size_t>(size / (32 * 8), max_words)};
}

void CpusReader::read(Context& context) const {
  left_ = max_details;
  read_names(context.reader);
  for (std::size_t cpu = 0; cpu < context.kernel.per_cpu_offsets().size(); ++cpu) {
    context.reader.clear_fault();
    const bool present = in_mask(context.reader, present_, cpu);
    if (present || !context.reader.ok()) read_cpu(context, cpu);
  }
  context.reader.clear_fault();
  if (left_ == 0) context.state.problem("cpus", "there is too much to tell of so many CPUs");
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
    read_details(context, info, cpu, record);
    read_capabilities(context, info, record);
    read_caches(context, cpu, record);
    if (!reader.ok()) {
      context.state.problem("cpus", fmt::format("cpu {}: what is known of it breaks at {}", cpu,
                                                reader.fault().value_or(info)));
    }
    reader.clear_fault();
  } else {
    context.state.problem(
        "cpus", fmt::format("cpu {}: {} is not readable", cpu, reader.fault().value_or(info)));
  }
  context.state.cpus.push_back(std::move(record));
}

/// They are the kernel's constants: read once.
void CpusReader::read_names(Reader& reader) const {
  if (known_names_) return;
  KnownNames known{read_name_table(reader, flag_names_), read_name_table(reader, bug_names_)};
  if (reader.ok()) known_names_ = std::move(known);
  reader.clear_fault();
}

std::vector<std::string> CpusReader::read_name_table(Reader& reader, const NameTable& table) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < table.words * 32 && reader.ok(); ++i) {
    const GuestVirt name = reader.pointer(table.start + i * 8);
    char buffer[64];
    names.emplace_back(name.raw() == 0 ? "" : reader.c_string(name, buffer));
  }
  return names;
}

void CpusReader::read_details(Context& context, GuestVirt info, std::size_t cpu,
                              CpuInfo& record) const {
  Reader& reader = context.reader;
  const auto number = [&](const Member& member) -> std::optional<unsigned> {
    if (member.size == 0) return std::nullopt;
    const auto value = static_cast<unsigned>(reader.value(info, member));
    return reader.ok() ? std::optional(value) : std::nullopt;
  };
  const auto id = [&](Offset offset) -> std::optional<unsigned> {
    if (offset == absent) return std::nullopt;
    const std::uint32_t value = reader.u16(info + offset);
    return reader.ok() ? std::optional<unsigned>(value) : std::nullopt;
  };
  record.family = number(family_);
  record.model = number(model_number_);
  record.stepping = number(stepping_);
  record.physical_bits = number(physical_bits_).value_or(0);
  record.virtual_bits = number(virtual_bits_).value_or(0);
  record.socket = id(socket_);
  record.core = id(core_);
  read_bogomips(reader, info, record);
  if (node_.raw() == 0) return;
  const std::uint32_t node = reader.u32(context.kernel.per_cpu(node_, cpu));
  if (reader.ok() && node < max_node) record.node = node;
}

/// CONFIG_HZ, which no variable keeps, from the length of a jiffy; 0 if it is not told.
/// clocksource_jiffies of kernel/time/jiffies.c: mult is TICK_NSEC << shift.
std::uint32_t CpusReader::ticks_a_second(Reader& reader) const {
  if (jiffies_clock_.raw() == 0 || clock_mult_ == absent || clock_shift_ == absent) return 0;
  constexpr std::uint64_t second_ns = 1'000'000'000, most = 10'000;
  const std::uint64_t mult = reader.u32(jiffies_clock_ + clock_mult_);
  const std::uint32_t shift = reader.u32(jiffies_clock_ + clock_shift_);
  if (!reader.ok() || mult == 0 || shift > 24) return 0;
  const std::uint64_t rate = ((second_ns << shift) + mult / 2) / mult;
  return rate <= most ? static_cast<std::uint32_t>(rate) : 0;
}

/// BogoMIPS are loops a jiffy times jiffies a second. A CPU whose loops were counted, not derived from the TSC's clock, has
/// others than that would give.
void CpusReader::read_bogomips(Reader& reader, GuestVirt info, CpuInfo& record) const {
  if (loops_ == absent) return;
  const std::uint64_t loops = reader.u64(info + loops_);
  const std::uint32_t hz = ticks_a_second(reader);
  if (!reader.ok() || loops == 0 || hz == 0 || 5000 / hz == 0) return;
  // As show_cpuinfo() of arch/x86/kernel/cpu/proc.c rounds.
  const std::uint64_t whole = loops / (500000 / hz), part = loops / (5000 / hz) % 100;
  record.bogomips = static_cast<double>(whole) + static_cast<double>(part) / 100;
}

void CpusReader::read_capabilities(Context& context, GuestVirt info, CpuInfo& record) const {
  if (!known_names_) return;
  const auto take = [&](const std::vector<std::string>& from, std::size_t first_word,
                        std::vector<std::string_view>& into) {
    for (std::size_t word = 0; word < from.size() / 32; ++word) {
      if (first_word + word >= capability_.count) return;
      const GuestVirt at = info + capability_.offset + (first_word + word) * 4;
      for (std::uint32_t bits = context.reader.u32(at); bits != 0; bits &= bits - 1) {
        const std::string& name = from[word * 32 + static_cast<unsigned>(std::countr_zero(bits))];
        if (name.empty() || left_ == 0) continue;
        into.push_back(context.arena().copy(name));
        --left_;
      }
    }
  };
  take(known_names_->flags, 0, record.flags);
  take(known_names_->bugs, known_names_->flags.size() / 32, record.bugs);
}

void CpusReader::read_caches(Context& context, std::size_t cpu, CpuInfo& record) const {
  if (info_list_ == absent) return;
  Reader& reader = context.reader;
  const GuestVirt info = context.kernel.per_cpu(cache_info_, cpu);
  const GuestVirt list = reader.pointer(info + info_list_);
  const std::uint32_t leaves = reader.u32(info + leaves_);
  if (!reader.ok() || list.raw() == 0 || leaves > max_leaves) return;
  for (std::uint32_t i = 0; i < leaves; ++i) {
    CpuCache cache = read_cache(context, list + std::uint64_t{i} * leaf_size_);
    if (!reader.ok()) return;
    if (cache.size_bytes != 0) record.caches.push_back(std::move(cache));
  }
}

CpuCache CpusReader::read_cache(Context& context, GuestVirt leaf) const {
  Reader& reader = context.reader;
  CpuCache cache{.level = reader.u32(leaf + at_.level),
                 .type = cache_type(reader.u32(leaf + at_.type)),
                 .size_bytes = reader.u32(leaf + at_.size),
                 .ways = reader.u32(leaf + at_.ways),
                 .sets = reader.u32(leaf + at_.sets),
                 .line_bytes = reader.u32(leaf + at_.line),
                 .cpus = {}};
  const std::size_t cpus = std::min(context.kernel.per_cpu_offsets().size(), max_cpus);
  for (std::size_t cpu = 0; cpu < cpus; ++cpu) {
    if (left_ == 0) break;
    if (!in_mask(reader, leaf + at_.cpus, cpu)) continue;
    cache.cpus.push_back(static_cast<unsigned>(cpu));
    --left_;
  }
  return cache;
}

}  // namespace vmsight
