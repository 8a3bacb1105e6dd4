// Views: guest-physical memory by one technique. See docs/techniques.md for the taxonomy.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "vmsight/image.h"
#include "vmsight/memory.h"
#include "vmsight/vm.h"

namespace VMSIGHT_PUBLIC vmsight {

/// Memory that is mapped can vanish: the host may cut the file that a VM's RAM or an image is, and
/// touching it then ends a program by SIGBUS. This installs a handler, for the whole process and for
/// good, that lets reads go on with an error instead; other SIGBUSes go to the handler there was
/// before. Without it nothing is mapped: "auto" takes other techniques, and images cannot be read.
Result<void> survive_lost_memory();

/// live-map: shared RAM mapped read-only into our process. Touching a page costs nothing but
/// the page fault; the guest is not slowed and not stopped.
/// unsupported, with the reason, if any RAM block is not a shared file that we may open.
Result<std::unique_ptr<GuestMemory>> open_live_map(const Vm& vm);

/// live-read: batched process_vm_readv into a page cache that lives for one view; the pages the
/// last view touched are fetched by the next in one batch. Works for every backing.
Result<std::unique_ptr<GuestMemory>> open_live_read(const Vm& vm);

/// file: an image; mapped where its bytes are memory as it was, else unpacked page by page.
Result<std::unique_ptr<GuestMemory>> open_file_view(const Image& image);

/// One view: from its begin() to its end a technique that halts has the guest halted, and one that
/// takes snapshots has one. When it dies, the guest runs.
class [[nodiscard]] View {
 public:
  /// `memory` must outlive it, and has no other view meanwhile.
  static Result<View> begin(GuestMemory& memory);
  View(View&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  View& operator=(View&&) = delete;
  ~View() { static_cast<void>(end()); }
  GuestMemory& memory() const { return *memory_; }
  /// To be called after the last read, before anything is shown. timeout if the guest ran in
  /// between: then nothing may be shown.
  Result<void> end();

 private:
  explicit View(GuestMemory& memory) : memory_(&memory) {}
  GuestMemory* memory_;
};

/// Runs `use` within one view of the memory: a technique that halts the guest halts it so long, one
/// that takes snapshots takes one. `use` copies out what is wanted and does nothing that can block:
/// no output, no file. What it read may be shown if this succeeds. Not for reading states, which
/// begin views of their own.
Result<void> in_one_view(GuestMemory& memory, const std::function<Result<void>()>& use);

/// What the views of a technique give, and what is done to the guest and QEMU for them. Ask this, not its
/// name; of a memory that is open GuestMemory::nature() says more.
struct TechniqueAbilities {
  bool consistent = false;  // a view shows one moment
  bool pauses = false;      // the guest is halted for a part of each view
  bool halts = false;       // ... for as long as the view, or its copy, is made
  bool copies = false;      // a view is a copy: the guest runs on while it is read
  bool injects = false;     // system calls are run inside the QEMU process
};

struct TechniqueStatus {
  std::string_view name;  // "live-map": for people, and to be asked for
  std::string_view what;  // one line
  std::string_view cost;  // one line: what a view costs the guest
  TechniqueAbilities abilities;
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
  bool copy = false;          // much is read: a view that halts must be a copy
  /// How long a view may halt the guest at most; nullopt: as the technique says.
  std::optional<std::chrono::milliseconds> max_halt;
};

/// Which technique "auto" takes for a wish: the first that works and gives what is wished for. Trying does not
/// disturb the guest. Errors as of open_view().
Result<TechniqueStatus> choose_technique(const Vm& vm, const TechniqueWish& wish);

/// The names of all techniques, in the order in which "auto" tries them.
std::vector<std::string_view> technique_names();

/// Opens a view by name: "live-read", "halt-read:ptrace", or a class of techniques ("halt-read"),
/// of which the first variant that works is taken. "auto" takes the cheapest that works and gives
/// what is wished for. `passed_over` gets those that came before it, each with the reason why it
/// was not taken. `vm` must outlive the view. usage for a name that is none; unsupported or permission, with
/// the reason and a hint, if the technique cannot be used here, or none gives what is wished for.
Result<std::unique_ptr<GuestMemory>> open_view(const Vm& vm, std::string_view technique,
                                               const TechniqueWish& wish = {},
                                               std::vector<TechniqueStatus>* passed_over = nullptr);

}  // namespace vmsight
