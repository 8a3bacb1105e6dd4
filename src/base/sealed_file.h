// Files in memory that nobody can change any more.
#pragma once

#include <string_view>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

/// One with these bytes. `name` is for people who look into /proc. os.
Result<UniqueFd> sealed_file(const char* name, std::string_view bytes);

}  // namespace vmsight
