// A kernel image that was found and understood; and which of several is the running one.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernel/kernel_image.h"
#include "kernel/memo.h"
#include "kernel/symbol_table.h"
#include "vmsight/kernel.h"

namespace vmsight {

struct FoundKernel {
  KernelImage image;
  std::unique_ptr<KernelMemo> memo;  // on the heap: `symbols` refers to it
  std::unique_ptr<SymbolTable> symbols;
  KernelCandidate candidate;
};

/// Chooses the running kernel. A guest's RAM keeps the images of earlier boots whole, so that only
/// these tell the running one: the maker of an image named it, a vCPU's page table maps it, its
/// clock moves. Of several that vCPUs map, those that crashed are out.
/// Sets candidate.live and candidate.why; returns an index into `kernels` (not empty). A lone
/// kernel is taken without proof, unless vCPUs are known and do not map it, or `others` says that
/// images were met that could not be understood (one of them may be starting up).
/// Errors: not_found (options.choose fits none; or the only image is a leftover), ambiguous.
Result<std::size_t> choose_kernel(GuestMemory& memory, std::vector<FoundKernel>& kernels,
                                  const FindKernelOptions& options, std::size_t others = 0);

/// jiffies_64, past all caches.
std::optional<std::uint64_t> read_clock(GuestMemory& memory, const FoundKernel& kernel);

/// "0: Linux version ... (build-id 12ab34cd, at gpa:0x...)", one after the other.
std::string describe(const std::vector<FoundKernel>& kernels);

}  // namespace vmsight
