#include "probe/flags.h"

#include <fmt/format.h>
#include <algorithm>

#include "probe/flag_tables.h"

namespace vmsight {
namespace {

/// The kernel's first real-time signal, and one after its last.
constexpr std::uint64_t real_time_signals = 32, signal_end = 65;

const FlagTable* find_table(FlagKind kind) {
  for (const auto tables : {file_flags(), process_flags()}) {
    for (const FlagTable& table : tables) {
      if (table.kind == kind) return &table;
    }
  }
  return nullptr;
}

std::string_view name_of(std::span<const FlagName> names, std::uint64_t value) {
  const auto at =
      std::find_if(names.begin(), names.end(), [&](const FlagName& n) { return n.value == value; });
  return at == names.end() ? "" : at->name;
}

void append(std::string& text, std::string_view name) {
  if (!text.empty()) text += '|';
  text += name;
}

/// As strace writes it: "0x7b /* F_??? */". What all names have in common goes up to the first underscore.
std::string unknown_constant(const FlagTable& table, std::uint64_t value) {
  if (table.values.empty()) return "";
  const std::string_view name = table.values.front().name;
  const std::size_t underscore = name.find('_');
  const std::string_view prefix =
      underscore == name.npos ? name.substr(0, 3) : name.substr(0, underscore + 1);
  return fmt::format("{:#x} /* {}??? */", value, prefix);
}

std::string bits_and_value(const FlagTable& table, std::uint64_t value) {
  std::string text;
  const std::string_view name = name_of(table.values, value & table.mask);
  const bool last = table.kind == FlagKind::clone_flags;  // "CLONE_VM|SIGCHLD"
  if (!last && !name.empty()) append(text, name);
  std::uint64_t rest = name.empty() ? value : value & ~table.mask;
  for (const FlagName& bit : table.bits) {
    if (bit.value == 0 || (rest & bit.value) != bit.value) continue;
    append(text, bit.name);
    rest &= ~bit.value;
  }
  if (last && !name.empty()) append(text, name);
  if (rest != 0) append(text, fmt::format("{:#x}", rest));
  return text.empty() ? std::string(table.zero) : text;
}

}  // namespace

std::string flag_names(FlagKind kind, std::uint64_t value, unsigned bits) {
  const std::uint64_t low = bits == 0 || bits >= 64 ? value : value & ((1ULL << bits) - 1);
  if (kind == FlagKind::hexadecimal) return fmt::format("{:#x}", low);
  if (kind == FlagKind::octal) return fmt::format("{:#o}", low);
  if (kind == FlagKind::signal && value >= real_time_signals && value < signal_end) {
    return fmt::format("SIGRT_{}", value - real_time_signals);
  }
  const FlagTable* table = find_table(kind);
  if (table == nullptr) return "";
  if (table->mask != ~0ULL) return bits_and_value(*table, low);
  const std::string_view name = name_of(table->values, value);
  // A request of an unknown driver is a bit pattern: direction, size, type, number.
  if (name.empty() && kind == FlagKind::ioctl_request) return fmt::format("{:#x}", low);
  // Descriptors, and signals that the kernel does not know, are numbers to everybody.
  const bool is_number = kind == FlagKind::directory || kind == FlagKind::signal;
  if (name.empty() && !is_number) return unknown_constant(*table, low);
  return std::string(name);
}

}  // namespace vmsight
