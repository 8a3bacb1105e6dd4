// Kernel stacks of tasks, as `vmsight stack` and cases have them.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernel/stack_unwinder.h"
#include "render/stacks.h"
#include "vmsight/guest.h"

namespace vmsight {

/// Unwinds tasks one by one. A task of a live guest may run meanwhile: its context switches are
/// counted before and after, and a stack that moved is taken again.
class StackReader {
 public:
  /// `guest` must outlive it. `all_frames`: the scheduler's own functions, too.
  static Result<StackReader> create(Guest& guest, bool all_frames);
  TaskStack read(const Thread& thread);

 private:
  explicit StackReader(Guest& guest)
      : guest_(&guest), reader_(std::make_unique<Reader>(*guest.memory, guest.kernel->space())) {}
  std::vector<std::uint64_t> switches(GuestVirt task);
  void fill(TaskStack& stack, const KernelStack& unwound);
  bool in_scheduler(GuestVirt address) const;

  Guest* guest_;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<StackUnwinder> unwinder_;
  std::span<const Symbol> symbols_;
  std::vector<Member> switches_;
  std::optional<std::pair<GuestVirt, GuestVirt>> scheduler_;  // .sched.text
};

}  // namespace vmsight
