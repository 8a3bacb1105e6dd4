#include "vmsight/view.h"

namespace vmsight {

Result<View> View::begin(GuestMemory& memory) {
  View view(memory);
  VMSIGHT_TRY_VOID(memory.refresh());
  return view;
}

Result<void> View::end() {
  GuestMemory* const memory = std::exchange(memory_, nullptr);
  return memory == nullptr ? Result<void>() : memory->end_view();
}

Result<void> in_one_view(GuestMemory& memory, const std::function<Result<void>()>& use) {
  VMSIGHT_TRY(View view, View::begin(memory));
  auto done = use();
  auto ended = view.end();
  // A halt that was cut short explains whatever else went wrong, too.
  if (!ended && ended.error().code == ErrorCode::timeout) return ended;
  return done ? std::move(ended) : std::move(done);
}

}  // namespace vmsight
