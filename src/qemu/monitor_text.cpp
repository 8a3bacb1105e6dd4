#include "qemu/monitor_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

namespace vmsight {
namespace {

Error malformed(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("read {}: not understood", what)};
}

std::string_view take_line(std::string_view& text) {
  const auto end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

/// Takes a hexadecimal number from the front.
std::optional<std::uint64_t> take_hex(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(at - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// "0000000000100000-00000000bfffffff (prio 0, ram): pc.ram @0000000000100000 KVM"
Result<std::optional<FlatRange>> parse_flat_range(std::string_view line) {
  const Error error = malformed(fmt::format("info mtree: \"{}\"", line.substr(0, 120)));
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  FlatRange range;
  const auto start = take_hex(line);
  if (!start || !take(line, "-")) return error;
  const auto last = take_hex(line);
  if (!last || *last < *start || !take(line, " (prio ")) return error;
  const auto comma = line.find(", "), close = line.find("): ");
  if (comma == std::string_view::npos || close == std::string_view::npos || close < comma) {
    return error;
  }
  const std::string_view type = line.substr(comma + 2, close - comma - 2);
  const bool memory = type == "ram" || type == "rom" || type == "nv-ram" || type == "nv-rom";
  if (!memory || *last - *start == ~std::uint64_t{0}) return std::optional<FlatRange>();
  line.remove_prefix(close + 3);
  const auto name_end = std::min(line.find(' '), line.size());
  range.start = GuestPhys(*start);
  range.size = *last - *start + 1;
  range.name = line.substr(0, name_end);
  line.remove_prefix(name_end);
  if (take(line, " @")) {
    const auto offset = take_hex(line);
    if (!offset) return error;
    range.offset = *offset;
  }
  return std::optional(std::move(range));
}

/// The text between the heading of the view that has address space "memory" and its end.
std::optional<std::string_view> memory_view(std::string_view text) {
  constexpr std::string_view heading = "FlatView #";
  constexpr std::string_view wanted = "\n AS \"memory\", root: ";
  for (auto at = text.find(heading); at != std::string_view::npos;) {
    const auto next = text.find(heading, at + heading.size());
    const std::string_view view =
        text.substr(at, next == std::string_view::npos ? next : next - at);
    if (view.find(wanted) != std::string_view::npos) return view;
    at = next;
  }
  return std::nullopt;
}

/// The hexadecimal value after `key`, which must not be the end of a longer word ("CR3=").
std::optional<std::uint64_t> value_after(std::string_view text, std::string_view key) {
  for (auto at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    if (at > 0 && text[at - 1] != ' ' && text[at - 1] != '\n') continue;
    std::string_view rest = text.substr(at + key.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    return take_hex(rest);
  }
  return std::nullopt;
}

/// "GS =0000 ffff88801f200000 00000000 00000000": selector, base, limit, flags.
std::optional<std::uint64_t> segment_base(std::string_view text, std::string_view key) {
  const auto at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = text.substr(at + key.size());
  if (!take_hex(rest) || !take(rest, " ")) return std::nullopt;
  return take_hex(rest);
}

/// In long mode only; `has_general` tells.
void parse_general(std::string_view text, VcpuRegisters& registers) {
  constexpr std::array<std::string_view, 16> keys = {
      "RAX=", "RBX=", "RCX=", "RDX=", "RSI=", "RDI=", "RSP=", "RBP=",
      "R8 =", "R9 =", "R10=", "R11=", "R12=", "R13=", "R14=", "R15="};
  const auto flags = value_after(text, "RFL=");
  bool all = flags.has_value();
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto value = value_after(text, keys[i]);
    all = all && value.has_value();
    registers.general[i] = value.value_or(0);
  }
  registers.rflags = flags.value_or(0);
  registers.has_general = all;
}

Result<VcpuRegisters> parse_vcpu(std::string_view text) {
  VcpuRegisters registers;
  auto rip = value_after(text, "RIP=");
  if (!rip) rip = value_after(text, "EIP=");  // not in long mode
  const auto cr3 = value_after(text, "CR3="), cr4 = value_after(text, "CR4=");
  const auto gs_base = segment_base(text, "\nGS =");
  const auto cpl = value_after(text, "CPL="), halted = value_after(text, "HLT=");
  if (!rip || !cr3 || !cr4 || !gs_base || !cpl || *cpl > 3 || !halted) {
    return malformed("info registers");
  }
  registers.rip = *rip;
  registers.cr3 = *cr3;
  registers.cr4 = *cr4;
  registers.gs_base = *gs_base;
  registers.cpl = static_cast<unsigned>(*cpl);
  registers.halted = *halted != 0;
  parse_general(text, registers);
  return registers;
}

}  // namespace

Result<std::vector<FlatRange>> parse_flat_view(std::string_view text) {
  const auto view = memory_view(text);
  if (!view) return malformed("info mtree: no address space \"memory\"");
  std::vector<FlatRange> ranges;
  std::string_view rest = *view;
  bool in_ranges = false;
  while (!rest.empty()) {
    const std::string_view line = take_line(rest);
    if (in_ranges && line.empty()) break;
    if (in_ranges) {
      VMSIGHT_TRY(auto range, parse_flat_range(line));
      if (range) ranges.push_back(std::move(*range));
    }
    in_ranges = in_ranges || line.starts_with(" Root memory region: ");
  }
  return ranges;
}

Result<HostVirt> parse_gpa2hva(std::string_view text) {
  constexpr std::string_view before = ") is 0x";
  const auto at = text.find(before);
  if (at == std::string_view::npos) return malformed("gpa2hva");
  text.remove_prefix(at + before.size());
  const auto address = take_hex(text);
  if (!address) return malformed("gpa2hva");
  return HostVirt(*address);
}

Result<void> parse_xp(std::string_view text, GuestPhys from, std::span<std::byte> into) {
  VMSIGHT_CHECK(into.size() % 8 == 0);
  std::size_t done = 0;
  while (!text.empty()) {
    std::string_view line = take_line(text);
    const auto address = take_hex(line);
    if (!address || *address != (from + done).raw() || !take(line, ":")) return malformed("xp");
    while (take(line, " ")) {
      if (!take(line, "0x") || done == into.size()) return malformed("xp");
      const auto word = take_hex(line);
      if (!word) return malformed("xp");
      std::memcpy(into.data() + done, &*word, sizeof *word);  // both are little endian
      done += sizeof *word;
    }
    if (!line.empty()) return malformed("xp");
  }
  return done == into.size() ? Result<void>() : malformed("xp");
}

Result<std::vector<VcpuRegisters>> parse_registers(std::string_view text) {
  constexpr std::string_view heading = "CPU#";
  std::vector<VcpuRegisters> all;
  for (auto at = text.find(heading); at != std::string_view::npos;) {
    const auto next = text.find(heading, at + heading.size());
    const std::string_view section =
        text.substr(at, next == std::string_view::npos ? next : next - at);
    std::string_view number = section.substr(heading.size());
    unsigned index = 0;
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), index);
    if (parsed.ec != std::errc()) return malformed("info registers");
    VMSIGHT_TRY(VcpuRegisters registers, parse_vcpu(section));
    registers.index = index;
    all.push_back(registers);
    at = next;
  }
  if (all.empty()) return malformed("info registers");
  return all;
}

}  // namespace vmsight
