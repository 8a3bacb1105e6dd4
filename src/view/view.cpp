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

}  // namespace vmsight
