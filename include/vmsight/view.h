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
  std::string_view name;  // "live-map"
  std::string_view what;  // one line
  std::string_view cost;  // one line: what a view costs the guest
  bool usable = false;
  std::string reason;  // why not
  std::string hint;    // what to do about it
};
/// Every technique, and whether it works for this VM. Trying does not disturb the guest.
std::vector<TechniqueStatus> technique_status(const Vm& vm);

/// What "auto" must give.
struct TechniqueWish {
  bool consistent = false;    // a view shows one moment
  bool no_pause = false;      // the guest never stands still
  bool no_injection = false;  // no system calls inside the QEMU process
};

/// The names of all techniques, in the order in which "auto" tries them.
std::vector<std::string_view> technique_names();

/// Opens a view by name: "live-read", "halt-read:ptrace", or a class of techniques ("halt-read"),
/// of which the first variant that works is taken. "auto" takes the cheapest that works and gives
/// what is wished for. `passed_over` gets those that came before it, each with the reason why it
/// was not taken. `vm` must outlive the view.
Result<std::unique_ptr<GuestMemory>> open_view(const Vm& vm, std::string_view technique,
                                               const TechniqueWish& wish = {},
                                               std::vector<TechniqueStatus>* passed_over = nullptr);

}  // namespace vmsight
