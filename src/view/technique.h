// The table of techniques, private to src/view. A name is CLASS or CLASS:VARIANT.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string_view>

#include "vmsight/halt.h"
#include "vmsight/view.h"

namespace vmsight {

struct Technique {
  std::string_view name;
  std::string_view what;  // one line: how memory is reached
  std::string_view cost;  // one line: what a view costs the guest
  TechniqueAbilities abilities;
  std::chrono::milliseconds max_halt = default_max_halt;  // of one view, unless the user says more
  bool copies_all = false;  // all of guest RAM during the halt: the larger it is, the longer
  /// Checks all that can be checked without disturbing the guest; the first refresh() disturbs it. What it
  /// opens is called `name`.
  Result<std::unique_ptr<GuestMemory>> (*open)(const Vm& vm, std::string_view name,
                                               std::chrono::milliseconds max_halt) = nullptr;
};

/// All of them; of those that fit a wish, "auto" takes the first that works.
std::span<const Technique> all_techniques();

}  // namespace vmsight
