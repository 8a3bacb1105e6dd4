// What a checker of integrity remembers from one run to the next, as long as it lives.
#pragma once

#include <map>
#include <string>

#include "detect/integrity/cred_memory.h"
#include "detect/integrity/text_baseline.h"

namespace vmsight {

struct IntegrityMemory {
  std::map<std::string, TextBaseline> baselines;  // by the path of their file
  CredMemory credentials;
};

}  // namespace vmsight
