#include "vmsight/halt.h"

namespace vmsight {

Paused& Paused::operator=(Paused&& other) noexcept {
  if (this != &other) {
    static_cast<void>(resume());
    halter_ = std::exchange(other.halter_, nullptr);
  }
  return *this;
}

Paused::~Paused() { static_cast<void>(resume()); }

Result<void> Paused::resume() {
  Halter* halter = std::exchange(halter_, nullptr);
  return halter == nullptr ? Result<void>() : halter->resume();
}

}  // namespace vmsight
