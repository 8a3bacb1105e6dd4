#include "undo/undo_guard.h"

namespace vmsight {
namespace {

Result<void> done(Result<std::uint64_t> answer) {
  if (!answer) return std::move(answer).error();
  return {};
}

}  // namespace

Result<UndoGuard> UndoGuard::start(const ProcessId& vm, const Change& change) {
  UndoGuard undo;
  VMSIGHT_TRY(undo.guard_,
              Guard::start(vm, {.service = "undo",
                                .config = {{"kind", change.kind}, {"payload", change.payload}},
                                .descriptors = {}}));
  return undo;
}

Result<void> UndoGuard::arm() { return done(guard_->ask(GuardRequest::arm)); }

Result<void> UndoGuard::disarm() { return done(guard_->ask(GuardRequest::disarm)); }

}  // namespace vmsight
