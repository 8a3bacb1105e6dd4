// The name of a task, whole, as /proc/PID/comm shows it.
//
// task_struct.comm holds 15 bytes. Kernel threads keep a longer name elsewhere: struct kthread
// has the full one (since 5.17), and a worker's shows what it works on ("kworker/0:1-events").
#pragma once

#include <string_view>

#include "state/members.h"
#include "vmsight/reader.h"
#include "vmsight/state.h"

namespace vmsight {

class TaskNames {
 public:
  static Result<TaskNames> resolve(Kernel& kernel);

  /// `flags` are the task's PF_* flags. In the arena; null with the reader's fault set if the
  /// name could not be read.
  std::string_view read(Reader& reader, Arena& arena, GuestVirt task, std::uint32_t flags) const;

  static constexpr std::uint32_t pf_wq_worker = 0x20, pf_kthread = 0x200000;

 private:
  class Buffer;
  void append_worker(Reader& reader, Buffer& name, GuestVirt task) const;
  void append_worker_id(Reader& reader, Buffer& name, GuestVirt worker, GuestVirt pool) const;

  struct Offsets {
    Offset comm, kthread;                            // of task_struct
    Offset full_name, data;                          // of kthread
    Offset pool, desc, current_work, id, rescue_wq;  // of worker
    Offset pool_cpu, pool_id, pool_attrs, attrs_nice, wq_name;
  } at_{};
  bool has_workers_ = false;
  bool whole_worker_ids_ = false;  // since 6.11 a worker's name does not come from comm
};

}  // namespace vmsight
