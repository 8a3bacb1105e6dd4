// Frames of kernel stacks with the names of their functions.
#pragma once

#include <span>

#include "kernel/stack_unwinder.h"
#include "render/stacks.h"

namespace vmsight {

/// `symbols` are the kernel's.
StackFrame name_frame(Kernel& kernel, std::span<const Symbol> symbols, const Frame& frame);

}  // namespace vmsight
