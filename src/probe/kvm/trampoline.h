// Where return probes run their calls through: sixteen bytes of the guest's own unused code space.
//
//   T:    49 89 e3       mov %rsp,%r11     R11 is free where a function begins and after it returns;
//   T+3:  0f 08          invd              RSP is not known at exits of every CPU
//   T+5:  e8 rel32       call site+5       the function's body
//   T+10: 49 89 e3       mov %rsp,%r11
//   T+13: 0f 08          invd              RSP is what it was at T+3
//   T+15: c3             ret
//
//   site: e9 rel32       jmp T             in place of the NOP
//
// The call's frame is one word deeper, so functions with arguments on the stack cannot be called
// this way. A trampoline is never removed: tasks that sleep in the function return through it.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

class Trampoline {
 public:
  static constexpr std::size_t size = 16;
  static constexpr std::size_t entry_end = 5;    // what follows the first trap
  static constexpr std::size_t return_end = 15;  // and the second

  /// Its code at `at`, for the site whose NOP begins at `site`. Both lie within 2 GiB.
  static std::string code(GuestVirt at, GuestVirt site);
  /// The jump that replaces the NOP.
  static std::string jump(GuestVirt site, GuestVirt at);
  /// The site that a trampoline at `at` with this code is for; nullopt if it is none.
  static std::optional<GuestVirt> site_of(GuestVirt at, std::string_view code);
};

/// Finds room for trampolines in one kernel:
///
///   the function's own 16 NOPs before it, `__pfx_NAME` (kernels built with CALL_PADDING), or
///   gaps of int3 around the entry code, inside the kernel's text (kernels with aligned entry code)
class TrampolineSpace {
 public:
  struct Place {
    GuestVirt address;
    std::string before;  // what is there now: room, or the trampoline of before
  };
  /// unsupported if this kernel has no room. `kernel` must outlive it.
  explicit TrampolineSpace(Kernel& kernel) : kernel_(kernel) {}
  Result<Place> find(Reader& reader, GuestVirt function, GuestVirt site);

 private:
  struct Gap {
    GuestVirt start, end;
  };
  Result<Place> find_in_gaps(Reader& reader, GuestVirt site);
  void find_gaps(Reader& reader);
  bool is_room(Reader& reader, GuestVirt page);

  Kernel& kernel_;
  bool looked_ = false;
  std::vector<Gap> gaps_;                // what is left of them
  std::map<GuestVirt, GuestVirt> used_;  // by site
  std::set<GuestVirt> taken_;
};

}  // namespace vmsight
