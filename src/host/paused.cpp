// Proof that a guest is halted; whoever halts it is a Halter of src/halt or src/qemu.
#include "vmsight/halt.h"

#include <utility>

namespace vmsight {

Paused& Paused::operator=(Paused&& other) noexcept {
  if (this != &other) {
    static_cast<void>(resume());
    halter_ = std::exchange(other.halter_, nullptr);
  }
  return *this;
}

Paused::~Paused() { static_cast<void>(resume()); }

Result<std::uint64_t> Paused::resume() {
  Halter* halter = std::exchange(halter_, nullptr);
  return halter == nullptr ? Result<std::uint64_t>(0) : halter->resume();
}

}  // namespace vmsight
