// Tests start the guard that was built with them.
#include <cstdlib>

namespace {

[[gnu::constructor]] void name_the_guard() { ::setenv("VMSIGHT_GUARD", VMSIGHT_TEST_GUARD, 0); }

}  // namespace
