// attach() as verbs want it: what they have to say goes to standard error, and long work shows its
// progress.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/verb.h"
#include "render/json.h"
#include "vmsight/guest.h"
#include "vmsight/state.h"

namespace vmsight {

/// What attach() takes, of the options that verbs share; it says nothing.
AttachOptions attach_options(const CommonOptions& options);

/// Opens the VM or image only.
Result<Guest> open_named(const CommonOptions& options);
/// ... and a view of its memory.
Result<Guest> open_named_memory(const CommonOptions& options);
/// Gives up all rights that are not needed from here on, for good, unless --no-sandbox was given. For verbs that look at
/// one guest and then end.
Result<void> enter_sandbox_for(Guest& guest, const CommonOptions& options);
/// ... and the kernel in it, into guest.kernel; again if the guest has rebooted.
Result<void> find_kernel_in(Guest& guest, const CommonOptions& options);

/// Attaches, runs `use`, and keeps what was learnt of the kernel for the next time.
Result<void> with_guest(const CommonOptions& options,
                        const std::function<Result<void>(Guest&)>& use);

/// One reading of the parts asked for. A VM that dies or reboots meanwhile is vm_gone.
Result<void> read_state(Guest& guest, const StateOptions& options, State& into);

/// The frame of verbs that show parts of the state: reads them, lets `filter` drop records, and
/// prints the same records either as JSON or by `text`. Problems go to standard error in text.
struct StateVerb {
  StateOptions options;
  unsigned shown = 0;  // the parts in the JSON document, 0 = all that are read
  Part rows{};         // what a line of CSV is
  std::function<Result<void>(State&, Guest&)> filter{};
  std::function<void(Output&, const State&, const Guest&)> text;
  std::function<Result<void>(const State&)> verdict{};  // of text, after it was printed
};
Result<void> show_state(Session& session, const StateVerb& verb);
/// usage if two forms of output were asked for.
Result<void> check_format(const CommonOptions& options);

/// To standard error; of many only the first.
void print_warnings(const std::vector<Problem>& problems);

}  // namespace vmsight
