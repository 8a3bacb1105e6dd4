// The kernel's list of what BPF has compiled: programs, trampolines and dispatchers (bpf_kallsyms).
#pragma once

#include <string>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

struct BpfSymbol {
  GuestVirt start, end;  // half-open
};

/// Empty if the kernel has none; fault if the list cannot be read or has no end. Programs of
/// classic BPF are not on it.
Result<std::vector<BpfSymbol>> read_bpf_symbols(Kernel& kernel, Reader& reader);

}  // namespace vmsight
