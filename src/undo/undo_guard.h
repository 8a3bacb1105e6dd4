// Undoes a change that we make ourselves, should we end (also by SIGKILL) before we have undone it.
//
//   arm()      before the change is made
//   disarm()   when all is as it was
//
// A guard (undo/guard.h) waits meanwhile. Should it be killed too, the journal (undo/journal.h) has the
// change: recover() of undo/recovery.h.
#pragma once

#include <memory>

#include "undo/guard.h"
#include "undo/journal.h"

namespace vmsight {

class UndoGuard {
 public:
  /// Nothing is changed or written yet.
  static Result<UndoGuard> start(const ProcessId& vm, const Change& change);

  Result<void> arm();
  Result<void> disarm();

 private:
  std::unique_ptr<Guard> guard_;
};

}  // namespace vmsight
