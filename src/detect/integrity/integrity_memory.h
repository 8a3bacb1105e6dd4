// What a checker of integrity remembers from one run to the next, as long as it lives.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "detect/integrity/cred_memory.h"
#include "detect/integrity/text_baseline.h"

namespace vmsight {

struct IntegrityMemory {
  std::map<std::string, TextBaseline> baselines;  // by the path of their file
  CredMemory credentials;
  std::uint64_t ticks_with_traps = 0;  // the guest's clock when all of vmsight's probes were there
};

}  // namespace vmsight
