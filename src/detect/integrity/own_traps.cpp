#include "detect/integrity/own_traps.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"
#include "probe/ftrace_site.h"
#include "probe/kvm/trampoline.h"
#include "probe/patch/code_patch.h"
#include "undo/journal.h"

namespace vmsight {
namespace {

bool is_young(const std::string& path) {
  std::error_code error;
  const auto written = std::filesystem::last_write_time(path, error);
  const auto age = std::filesystem::file_time_type::clock::now() - written;
  return error || age < std::chrono::seconds(1);
}

}  // namespace

std::vector<OwnTrap> read_own_traps(const VmInfo& vm) {
  std::vector<OwnTrap> traps;
  for (const Record& record : read_journal()) {
    if (record.vm != ProcessId{vm.pid, vm.start_time} || record.change.kind != probes_change.name)
      continue;
    const auto patches = parse_patches(record.change.payload);
    if (!patches) continue;
    const bool is_new = is_young(record.path);
    for (const CodePatch& patch : *patches) {
      if (patch.instruction == GuestVirt()) continue;
      // What crosses a page is recorded as two patches of one instruction.
      if (!traps.empty() && traps.back().address == patch.instruction) {
        traps.back().code += patch.after;
        traps.back().before += patch.before;
      } else {
        traps.push_back({patch.instruction, patch.after, patch.before, is_new});
      }
    }
  }
  std::ranges::stable_sort(traps, {}, &OwnTrap::address);
  return traps;
}

std::string pack_traps(const std::vector<OwnTrap>& traps) {
  std::string text;
  for (const OwnTrap& trap : traps) {
    text += fmt::format("{:x} {:d}", trap.address.raw(), trap.is_new);
    for (const std::string& bytes : {trap.code, trap.before}) {
      text += " x";
      for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    }
    text += '\n';
  }
  return text;
}

namespace {

std::optional<std::string> bytes_of(std::string_view digits) {
  if (!digits.starts_with('x')) return std::nullopt;
  digits.remove_prefix(1);
  std::string bytes;
  for (; digits.size() >= 2; digits.remove_prefix(2)) {
    const auto byte = parse_whole<std::uint8_t>(digits.substr(0, 2), 16);
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
  }
  return digits.empty() ? std::optional(bytes) : std::nullopt;
}

std::optional<OwnTrap> trap_of(std::string_view line) {
  const auto words = split_at(line, ' ');
  if (words.size() != 4) return std::nullopt;
  const auto address = parse_whole<std::uint64_t>(words[0], 16);
  auto code = bytes_of(words[2]), before = bytes_of(words[3]);
  if (!address || !code || !before) return std::nullopt;
  return OwnTrap{GuestVirt(*address), *std::move(code), *std::move(before), words[1] == "1"};
}

}  // namespace

Result<std::vector<OwnTrap>> unpack_traps(std::string_view text) {
  std::vector<OwnTrap> traps;
  for (const std::string_view line : split_at(text, '\n')) {
    if (line.empty()) continue;
    auto trap = trap_of(line);
    if (!trap) return Error{ErrorCode::bad_data, "that is no list of traps"};
    traps.push_back(*std::move(trap));
  }
  return traps;
}

const OwnTrap* find_own_trap(const std::vector<OwnTrap>& traps, GuestVirt address) {
  const auto at = std::ranges::lower_bound(traps, address, {}, &OwnTrap::address);
  return at != traps.end() && at->address == address ? &*at : nullptr;
}

bool is_trap(std::string_view code) {
  return std::ranges::equal(code, invd_trap, {},
                            [](char one) { return static_cast<std::byte>(one); });
}

std::optional<GuestVirt> trampoline_site(Reader& reader, GuestVirt at) {
  std::string code(Trampoline::size, '\0');
  reader.copy(at, std::as_writable_bytes(std::span(code)));
  const bool readable = reader.ok();
  reader.clear_fault();
  return readable ? Trampoline::site_of(at, code) : std::nullopt;
}

}  // namespace vmsight
