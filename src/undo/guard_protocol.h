// What we and a guard (undo/guard.h) say to each other, on a SOCK_SEQPACKET pair.
//
//   we      Request, perhaps with the descriptor of a sealed memfd that holds a JSON payload
//   guard   Answer, one for each request, in order
#pragma once

#include <array>
#include <cstdint>

#include "vmsight/result.h"

namespace vmsight {

/// Descriptors that the guard's program finds open when it starts.
inline constexpr int guard_control_fd = 3;  // its end of the pair
inline constexpr int guard_owner_fd = 4;    // a pidfd of who started it
inline constexpr int guard_setup_fd = 5;    // a memfd: what it guards, as JSON
inline constexpr int guard_extra_fd = 6;    // what a service needs besides, if anything

/// What can be asked of a guard. Which of them a service knows is said where it stands.
enum class GuardRequest : std::uint32_t {
  halt,         // argument: the lease in ms. Value: 1 if it halted the guest, 0 if it stood already
  resume,       // value: how long the guest was halted, in ns. timeout if the lease ran out before
  arm,          // payload: a change. From now on the guard undoes it when we are gone
  disarm,       // all is as it was
  hold,         // argument 1: we are about to stop the guest by other means than `halt`
  open,         // prepares for snapshots
  protect,      // write-protects guest RAM; every page is copied before it is written
  unprotect,    // value: how many pages were copied
  copy,         // makes a copy of the QEMU process. Value: its PID
  remove_copy,  // takes it away
  write,        // payload: a list of patches, written all or none
  revert,       // payload: a list of patches, of which those that are still there are put back
  undo,         // undoes the change that it was started with, now
  only_halts,   // argument: the longest lease. From now on nothing but `halt` and `resume` is done
  pause,  // payload: who wants it. The guest is stopped and stays so. Value: 0 if it stood already
};

struct GuardMessage {
  GuardRequest request{};
  std::uint32_t payload_size = 0;  // bytes in the memfd that comes along; 0: none does
  std::uint64_t argument = 0;
};

struct GuardAnswer {
  bool ok = false;
  ErrorCode code{};
  int os_errno = 0;
  std::uint64_t value = 0;
  std::array<char, 256> message{};
  std::array<char, 256> hint{};
};

inline constexpr std::size_t max_guard_payload = 16u << 20;  // 16,384 patches and more

}  // namespace vmsight
