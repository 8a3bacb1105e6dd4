// The kernel's table of kprobes.
#pragma once

#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

struct Kprobe {
  GuestVirt at;  // struct kprobe
  GuestVirt address, pre_handler, post_handler;
};

/// Those in kprobe_table, and those behind an aggregate. unsupported if the kernel has none.
Result<std::vector<Kprobe>> read_kprobes(Kernel& kernel, Reader& reader);

}  // namespace vmsight
