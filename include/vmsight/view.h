// Views: guest-physical memory by one technique. See docs/techniques.md for the taxonomy.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "vmsight/memory.h"
#include "vmsight/vm.h"

namespace vmsight {

/// live-map: shared RAM mapped read-only into our process. Touching a page costs nothing but
/// the page fault; the guest is not slowed and not stopped.
/// unsupported, with the reason, if any RAM block is not a shared file that we may open.
Result<std::unique_ptr<GuestMemory>> open_live_map(const Vm& vm);

/// live-read: batched process_vm_readv into a page cache that lives for one view; the pages the
/// last view touched are fetched by the next in one batch. Works for every backing.
Result<std::unique_ptr<GuestMemory>> open_live_read(const Vm& vm);

/// file: an image, mapped.
Result<std::unique_ptr<GuestMemory>> open_file_view(const Image& image);

struct TechniqueStatus {
  std::string_view name;   // "live-map"
  std::string_view what;   // one line
  bool usable = false;
  std::string reason;      // why not, or which variant
  std::string hint;        // what to do about it
};
/// Every technique, and whether it works for this VM.
std::vector<TechniqueStatus> technique_status(const Vm& vm);

/// Opens a view by name; "auto" takes live-map where it can, else live-read.
Result<std::unique_ptr<GuestMemory>> open_view(const Vm& vm, std::string_view technique);

}  // namespace vmsight
