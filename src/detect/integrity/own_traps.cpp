#include "detect/integrity/own_traps.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

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
