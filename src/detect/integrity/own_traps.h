// Probes of vmsight itself in a guest's code: what the journal of changes says is armed.
//
//   undo/journal.h ---> records of this VM ---> OwnTrap, one a site
//
// An author writes its record before it arms and removes it after it has disarmed, so a trap that
// is in the guest, and in no record, was put there by somebody else.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmsight/address.h"
#include "vmsight/reader.h"
#include "vmsight/vm.h"

namespace vmsight {

struct OwnTrap {
  GuestVirt address;
  std::string code;     // what is there while it is armed
  std::string before;   // what the kernel had there
  bool is_new = false;  // it may not be armed yet: its record is younger than a second
};

/// Of all vmsights that probe the kernel of this VM, sorted by address. Traps in pages of files are
/// not among them: those have no address of their own.
std::vector<OwnTrap> read_own_traps(const VmInfo& vm);

/// As text, for whoever may read the journal to tell one who may not.
std::string pack_traps(const std::vector<OwnTrap>& traps);
/// bad_data if it is not what pack_traps() makes.
Result<std::vector<OwnTrap>> unpack_traps(std::string_view text);

/// The one at `address`; nullptr if there is none.
const OwnTrap* find_own_trap(const std::vector<OwnTrap>& traps, GuestVirt address);

/// Whether these bytes are the trap that takes the place of a NOP.
bool is_trap(std::string_view code);
/// The place that the trampoline of return probes at `at` is for; nullopt if there is none.
std::optional<GuestVirt> trampoline_site(Reader& reader, GuestVirt at);

}  // namespace vmsight
