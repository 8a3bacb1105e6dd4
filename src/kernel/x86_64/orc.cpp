#include "kernel/x86_64/orc.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <span>

namespace vmsight {
namespace {

constexpr std::uint32_t max_entries = 1u << 24;  // of a table; today's kernels have 0.8 million
constexpr std::size_t max_orc_modules = 4096;
constexpr std::size_t max_known = 1u << 16;  // remembered rules
constexpr std::size_t max_entry_size = 16;

Error missing(std::string_view what) {
  return {ErrorCode::unsupported, fmt::format("unwind kernel stacks: this kernel has no {}", what)};
}

struct Wanted {
  std::string_view type, path;
  Member* into;
};

Result<void> resolve_all(Kernel& kernel, std::span<const Wanted> members) {
  for (const Wanted& wanted : members) {
    const std::optional<Member> member = kernel.member(wanted.type, wanted.path);
    if (!member) return missing(fmt::format("{}.{} in its BTF", wanted.type, wanted.path));
    *wanted.into = *member;
  }
  return {};
}

/// The bits of a member within the bytes of an entry.
std::uint64_t field(const std::array<std::byte, max_entry_size>& entry, const Member& member) {
  std::uint64_t raw = 0;
  std::memcpy(&raw, entry.data() + member.offset, 8);
  const unsigned bits = member.bit_size != 0 ? member.bit_size : member.size * 8;
  return raw >> member.bit_offset & ((1ULL << bits) - 1);
}

bool fits(const Member& member) {
  const unsigned bits = member.bit_size != 0 ? member.bit_size : member.size * 8;
  return member.offset <= max_entry_size - 8 && bits >= 1 && bits + member.bit_offset < 64;
}

}  // namespace

Result<std::unique_ptr<OrcTables>> OrcTables::create(Kernel& kernel, Reader& reader) {
  std::unique_ptr<OrcTables> tables(new OrcTables);
  VMSIGHT_TRY_VOID(tables->add_kernel(kernel));
  VMSIGHT_TRY_VOID(tables->resolve(kernel));
  VMSIGHT_TRY_VOID(tables->learn_numbers(kernel, reader));
  tables->add_modules(kernel, reader);
  reader.clear_fault();  // modules that cannot be read are modules whose frames are guessed
  return tables;
}

Result<void> OrcTables::resolve(Kernel& kernel) {
  const Wanted members[] = {
      {"orc_entry", "sp_offset", &entry_.sp_offset},
      {"orc_entry", "bp_offset", &entry_.bp_offset},
      {"orc_entry", "sp_reg", &entry_.sp_reg},
      {"orc_entry", "bp_reg", &entry_.bp_reg},
      {"orc_entry", "type", &entry_.type},
      {"task_struct", "stack", &layout_.stack},
      {"task_struct", "thread.sp", &layout_.saved_sp},
      {"task_struct", "on_cpu", &layout_.on_cpu},
      {"inactive_task_frame", "bp", &layout_.frame_bp},
      {"inactive_task_frame", "ret_addr", &layout_.frame_return},
      {"pt_regs", "ip", &layout_.ip},
      {"pt_regs", "sp", &layout_.sp},
      {"pt_regs", "bp", &layout_.bp},
      {"pt_regs", "cs", &layout_.cs},
      {"pt_regs", "orig_ax", &layout_.orig_ax},
      {"pt_regs", "ax", &layout_.ax},
      {"pt_regs", "dx", &layout_.dx},
      {"pt_regs", "di", &layout_.di},
      {"pt_regs", "r10", &layout_.r10},
      {"pt_regs", "r13", &layout_.r13},
  };
  VMSIGHT_TRY_VOID(resolve_all(kernel, members));
  entry_.end = kernel.member("orc_entry", "end");
  entry_.signal = kernel.member("orc_entry", "signal");
  entry_.size = kernel.type_size("orc_entry").value_or(0);
  layout_.frame_size = kernel.type_size("inactive_task_frame").value_or(0);
  layout_.regs_size = kernel.type_size("pt_regs").value_or(0);
  // THREAD_SIZE is in no type, but IRQ stacks are of the same order (asm/page_64_types.h).
  layout_.stack_size = std::clamp<std::uint64_t>(kernel.type_size("irq_stack").value_or(0),
                                                 4 * page_size, 16 * page_size);
  layout_.fork_start = kernel.symbol("ret_from_fork").value_or(GuestVirt());
  layout_.fork_start_asm = kernel.symbol("ret_from_fork_asm").value_or(GuestVirt());
  const bool sane = entry_.size != 0 && entry_.size <= max_entry_size && fits(entry_.sp_offset) &&
                    fits(entry_.bp_offset) && fits(entry_.sp_reg) && fits(entry_.bp_reg) &&
                    fits(entry_.type) && (!entry_.end || fits(*entry_.end)) &&
                    (!entry_.signal || fits(*entry_.signal)) && layout_.frame_size <= page_size &&
                    layout_.regs_size <= page_size;
  return sane ? Result<void>() : missing("sensible struct orc_entry in its BTF");
}

Result<void> OrcTables::add_kernel(Kernel& kernel) {
  constexpr std::string_view names[] = {"_stext", "_etext", "__start_orc_unwind_ip",
                                        "__stop_orc_unwind_ip", "__start_orc_unwind"};
  std::array<GuestVirt, std::size(names)> at;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const std::optional<GuestVirt> address = kernel.symbol(names[i]);
    if (!address) return missing(fmt::format("ORC tables (symbol {})", names[i]));
    at[i] = *address;
  }
  const std::uint64_t count = at[3] > at[2] ? (at[3] - at[2]) / 4 : 0;
  if (count == 0 || count > max_entries) return missing("sensible ORC tables");
  tables_.push_back({at[0], at[1], at[2], at[4], static_cast<std::uint32_t>(count)});
  return {};
}

/// Registers were numbered anew after 6.12, and no type says so. But at the first instruction of
/// every function the caller's frame is at sp + 8: the number found there is that of sp.
Result<void> OrcTables::learn_numbers(Kernel& kernel, Reader& reader) {
  using Base = OrcRule::Base;
  constexpr std::array<Base, 16> first_numbers = {
      Base::undefined, Base::previous_sp, Base::dx,          Base::di,          Base::bp, Base::sp,
      Base::r10,       Base::r13,         Base::bp_indirect, Base::sp_indirect, Base::ax};
  constexpr std::array<Base, 16> second_numbers = {
      Base::undefined, Base::ax,  Base::dx,          Base::sp,          Base::bp,         Base::di,
      Base::r10,       Base::r13, Base::previous_sp, Base::sp_indirect, Base::bp_indirect};
  const std::optional<GuestVirt> function = kernel.symbol("schedule");
  if (!function) return missing("symbol schedule");
  const std::optional<EntryBytes> entry = read_entry(reader, *function);
  if (!entry || field(*entry, entry_.sp_offset) != 8) return missing("readable ORC tables");
  for (const auto& numbers : {first_numbers, second_numbers}) {
    if (numbers[field(*entry, entry_.sp_reg) & 15] != Base::sp) continue;
    bases_ = numbers;
    return {};
  }
  return missing("ORC registers with known numbers");
}

void OrcTables::add_modules(Kernel& kernel, Reader& reader) {
  const auto head = kernel.symbol("modules");
  const auto list = kernel.member("module", "list");
  const auto count = kernel.member("module", "arch.num_orcs");
  const auto places = kernel.member("module", "arch.orc_unwind_ip");
  const auto entries = kernel.member("module", "arch.orc_unwind");
  // Text is the first of the memories that modules have since 6.4.
  auto base = kernel.member("module", "mem[0].base");
  auto size = kernel.member("module", "mem[0].size");
  if (!base) base = kernel.member("module", "core_layout.base");
  if (!size) size = kernel.member("module", "core_layout.size");
  if (!head || !list || !count || !places || !entries || !base || !size) return;
  GuestVirt node = reader.pointer(*head);
  for (std::size_t i = 0; i < max_orc_modules && node != *head && reader.ok(); ++i) {
    const GuestVirt module = node - list->offset;
    const GuestVirt start = reader.pointer(module + base->offset);
    const auto entry_count = static_cast<std::uint32_t>(reader.value(module, *count));
    const Table table{start, start + reader.value(module, *size),
                      reader.pointer(module + places->offset),
                      reader.pointer(module + entries->offset), entry_count};
    node = reader.pointer(node);
    if (reader.ok() && table.count != 0 && table.count <= max_entries) tables_.push_back(table);
  }
}

const OrcTables::Table* OrcTables::table_for(GuestVirt address) const {
  const auto found = std::find_if(tables_.begin(), tables_.end(), [&](const Table& table) {
    return address >= table.text_start && address < table.text_end;
  });
  return found == tables_.end() ? nullptr : &*found;
}

/// The last entry whose place is not after `code`.
std::optional<std::uint32_t> OrcTables::search(Reader& reader, const Table& table,
                                               GuestVirt code) const {
  std::uint32_t first = 0, last = table.count;  // the answer + 1 is in (first, last]
  while (first < last) {
    const std::uint32_t middle = first + (last - first) / 2;
    const GuestVirt at = table.places + std::uint64_t{4} * middle;
    const auto distance = static_cast<std::int64_t>(reader.get<std::int32_t>(at));
    if (at + static_cast<std::uint64_t>(distance) <= code) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  if (first == 0 || !reader.ok()) return std::nullopt;
  return first - 1;
}

std::optional<OrcTables::EntryBytes> OrcTables::read_entry(Reader& reader, GuestVirt code) const {
  const Table* table = table_for(code);
  if (table == nullptr) return std::nullopt;
  reader.clear_fault();
  const std::optional<std::uint32_t> index = search(reader, *table, code);
  EntryBytes entry{};
  if (index)
    reader.copy(table->entries + entry_.size * *index, std::span(entry).first(entry_.size));
  const bool readable = reader.ok();
  reader.clear_fault();
  return index && readable ? std::optional(entry) : std::nullopt;
}

std::optional<OrcRule> OrcTables::find(Reader& reader, GuestVirt code) {
  const auto known = known_.find(code.raw());
  if (known != known_.end()) return known->second;
  const std::optional<EntryBytes> entry = read_entry(reader, code);
  if (!entry) return std::nullopt;
  if (known_.size() >= max_known) known_.clear();
  return known_[code.raw()] = decode(*entry);
}

OrcRule OrcTables::decode(const EntryBytes& entry) const {
  using Kind = OrcRule::Kind;
  OrcRule rule;
  rule.sp_base = bases_[field(entry, entry_.sp_reg) & 15];
  rule.bp_base = bases_[field(entry, entry_.bp_reg) & 15];
  rule.sp_offset = static_cast<std::int16_t>(field(entry, entry_.sp_offset));
  rule.bp_offset = static_cast<std::int16_t>(field(entry, entry_.bp_offset));
  // "end" became a type of its own in 6.4, and the other types moved up by two.
  const std::uint64_t type = field(entry, entry_.type);
  const bool old_types = entry_.end.has_value();
  constexpr Kind kinds[] = {Kind::undefined, Kind::end_of_stack, Kind::call, Kind::regs,
                            Kind::partial_regs};
  const std::uint64_t index = type + (old_types ? 2 : 0);
  if (index < std::size(kinds)) rule.kind = kinds[index];
  if (old_types && rule.sp_base == OrcRule::Base::undefined) {
    rule.kind = field(entry, *entry_.end) != 0 ? Kind::end_of_stack : Kind::undefined;
  }
  rule.interrupted = entry_.signal ? field(entry, *entry_.signal) != 0
                                   : rule.kind == Kind::regs || rule.kind == Kind::partial_regs;
  return rule;
}

}  // namespace vmsight
