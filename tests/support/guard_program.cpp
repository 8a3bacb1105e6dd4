// Tests start the guard that was built with them, and map memory.
#include <cstdlib>

#include "vmsight/view.h"

namespace {

[[gnu::constructor]] void name_the_guard() { ::setenv("VMSIGHT_GUARD", VMSIGHT_TEST_GUARD, 0); }

[[maybe_unused]] const bool maps_memory = vmsight::survive_lost_memory().has_value();

}  // namespace
