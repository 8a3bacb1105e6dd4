// The architecture of x86-64 guests.
#pragma once

#include "kernel/architecture.h"

namespace vmsight {

extern const Architecture x86_64;

}  // namespace vmsight
