#include "cli/stack_reader.h"

#include "cli/frame_names.h"
#include "kernel/architecture.h"

namespace vmsight {

Result<StackReader> StackReader::create(Guest& guest, bool all_frames) {
  StackReader self(guest);
  VMSIGHT_TRY(self.unwinder_,
              guest.kernel->space().architecture().make_unwinder(*guest.kernel, *self.reader_));
  VMSIGHT_TRY(self.symbols_, guest.kernel->symbols());
  for (const char* name : {"nvcsw", "nivcsw"}) {
    if (const auto member = guest.kernel->member("task_struct", name)) {
      self.switches_.push_back(*member);
    }
  }
  const auto start = guest.kernel->symbol("__sched_text_start");
  const auto end = guest.kernel->symbol("__sched_text_end");
  if (start && end && !all_frames) self.scheduler_ = std::pair(*start, *end);
  return self;
}

TaskStack StackReader::read(const Thread& thread) {
  constexpr unsigned attempts = 3;
  TaskStack stack{.pid = thread.pid,
                  .tgid = thread.tgid,
                  .comm = std::string(thread.comm),
                  .state = thread.state};
  for (unsigned attempt = 0; attempt < attempts; ++attempt) {
    if (attempt > 0) reader_->refetch();
    reader_->begin_object();
    const auto before = switches(thread.task);
    const auto unwound = unwinder_->unwind(*reader_, thread.task);
    if (!unwound) {
      stack.problem = unwound.error().message;
    } else {
      fill(stack, *unwound);
    }
    if (!guest_->memory->is_live() || switches(thread.task) == before) return stack;
    stack.problem = "the task ran while its stack was read";
  }
  stack.frames.clear();
  return stack;
}

/// Straight from the guest; empty if it cannot be read.
std::vector<std::uint64_t> StackReader::switches(GuestVirt task) {
  std::vector<std::uint64_t> counts(switches_.size());
  std::vector<FreshRead> reads;
  for (std::size_t i = 0; i < switches_.size(); ++i) {
    const auto at = guest_->kernel->space().translate(*guest_->memory, task + switches_[i].offset);
    if (!at) return {};
    reads.push_back({*at, std::as_writable_bytes(std::span(&counts[i], 1))});
  }
  return guest_->memory->read_fresh(reads) ? counts : std::vector<std::uint64_t>{};
}

void StackReader::fill(TaskStack& stack, const KernelStack& unwound) {
  stack.frames.clear();
  for (const Frame& frame : unwound.frames) {
    if (!in_scheduler(frame.pc))
      stack.frames.push_back(name_frame(*guest_->kernel, symbols_, frame));
  }
  stack.problem = unwound.complete ? "" : std::string(unwound.stopped);
  stack.system_call = unwound.system_call;
}

/// The functions that wait: /proc/PID/stack leaves them out too.
bool StackReader::in_scheduler(GuestVirt address) const {
  return scheduler_ && address >= scheduler_->first && address < scheduler_->second;
}

}  // namespace vmsight
