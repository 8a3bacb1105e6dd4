// Undoes what we do to a guest through its monitor, should we end (also by SIGKILL) in its midst.
//
//   arm()      before the guest is stopped, or settings of QEMU are changed
//   disarm()   when all is as it was
//
// A process of its own waits; once we are gone the monitor is free, and it connects there. Should
// it be killed too, the journal (vm/journal.h) has the change: recover() of vm/recovery.h.
#pragma once

#include <memory>

#include "vm/attendant.h"
#include "vm/journal.h"
#include "vm/qmp.h"
#include "vmsight/vm.h"

namespace vmsight {

class ResumeGuard {
 public:
  /// Undoes the change by undo_change(). Nothing is changed or written yet.
  static Result<ResumeGuard> start(const VmInfo& info, Change change);

  Result<void> arm();
  Result<void> disarm();

 private:
  Result<void> tell(std::uint32_t armed);

  std::unique_ptr<Attendant> attendant_;
  ProcessId process_;  // the attendant's
  JournalEntry entry_;
};

/// `cont`, once migration has let go of the guest; does nothing to one that runs.
Result<void> make_it_run(QmpClient& monitor);

}  // namespace vmsight
