// From the word VM of the command line to a kernel in guest memory:
// vm -> view -> kernel -> state, with progress on a terminal if it takes long.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "cli/verb.h"
#include "render/json.h"
#include "vmsight/kernel.h"
#include "vmsight/state.h"
#include "vmsight/view.h"
#include "vmsight/vm.h"

namespace vmsight {

/// What VM named. Exactly one of `vm` and `image` is set.
struct Target {
  std::unique_ptr<Vm> vm;
  std::optional<Image> image;
  std::unique_ptr<GuestMemory> memory;
  std::vector<TechniqueStatus> passed_over;  // techniques that "auto" did not take, and why
  std::unique_ptr<Kernel> kernel;            // empty after open_memory()
  VmSummary summary;

  /// Control registers of the vCPUs, where they are to be had.
  std::vector<std::uint64_t> cr3() const;
};

/// Opens the VM or image only.
Result<Target> open_vm_or_image(const std::string& spec);
/// ... and a view of its memory.
Result<Target> open_memory(const CommonOptions& options);
/// ... and the kernel in it, into target.kernel.
Result<void> find_kernel_in(Target& target, const CommonOptions& options);

/// Runs `use` within one view of the memory: a technique that halts the guest halts it so long, one
/// that takes snapshots takes one. `use` copies out what is wanted and does nothing that can block:
/// no output, no file. What it read may be shown if this succeeds. Not for reading states, which begin views of their own.
Result<void> in_one_view(Target& target, const std::function<Result<void>()>& use);

/// Opens a target, runs `use`, and keeps what was learnt of the kernel for the next time.
Result<void> with_target(const CommonOptions& options,
                         const std::function<Result<void>(Target&)>& use);

/// One reading of the parts asked for. A VM that dies or reboots meanwhile is vm_gone.
Result<void> read_state(Target& target, const StateOptions& options, State& into);

/// The frame of verbs that show parts of the state: reads them, lets `filter` drop records, and
/// prints the same records either as JSON or by `text`. Problems go to standard error in text.
struct StateVerb {
  StateOptions options;
  unsigned shown = 0;  // the parts in the JSON document, 0 = all that are read
  std::function<Result<void>(State&, Target&)> filter{};
  std::function<void(Output&, const State&, const Target&)> text;
  std::function<Result<void>(const State&)> verdict{};  // of text, after it was printed
};
Result<void> show_state(Session& session, const StateVerb& verb);

/// To standard error; of many only the first.
void print_warnings(const std::vector<Problem>& problems);

/// $XDG_CACHE_HOME/vmsight, "" if there is no home.
std::string cache_directory();

}  // namespace vmsight
