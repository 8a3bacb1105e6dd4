#include "state/tasks.h"

#include <bit>

#include "state/lists.h"

namespace vmsight {

namespace {

// include/linux/sched.h, the same in 5.10-7.2
constexpr std::uint32_t task_uninterruptible = 0x2;
constexpr std::uint32_t task_report = 0x7f;
constexpr std::uint32_t task_idle = 0x402;     // TASK_UNINTERRUPTIBLE | TASK_NOLOAD
constexpr std::uint32_t task_rtlock = 0x1000;  // waits for a lock of an RT kernel
constexpr std::uint32_t task_frozen = 0x8000;

// LIST_POISON2, include/linux/poison.h: what list_del_rcu() leaves in `prev`
constexpr std::uint64_t list_poison = 0xdead000000000122;

// PID_MAX_LIMIT
constexpr std::size_t max_threads = 1u << 22;

}  // namespace

Result<Tasks> Tasks::resolve(Kernel& kernel) {
  Members members(kernel);
  const auto task = [&](std::string_view path) { return members.offset("task_struct", path); };
  const auto state = kernel.member("task_struct", "__state");
  Tasks tasks;
  tasks.init_task_ = members.symbol("init_task");
  tasks.at_ = {
      .state = members.offset("task_struct", {"__state", "state"}),
      .state_size = state ? state->size : 8,
      .exit_state = task("exit_state"),
      .flags = task("flags"),
      .cpu = members.offset("task_struct", {"thread_info.cpu", "cpu"}),
      .prio = task("prio"),
      .static_prio = task("static_prio"),
      .tasks = task("tasks"),
      .thread_node = task("thread_node"),
      .pid = task("pid"),
      .tgid = task("tgid"),
      .real_parent = task("real_parent"),
      .comm = task("comm"),
      .stack = task("stack"),
      .mm = task("mm"),
      .files = task("files"),
      .fs = task("fs"),
      .nsproxy = task("nsproxy"),
      .real_cred = task("real_cred"),
      .signal = task("signal"),
      .sighand = task("sighand"),
      .thread_pid = task("thread_pid"),
      .start_boottime = members.offset("task_struct", {"start_boottime", "real_start_time"}),
      .utime = task("utime"),
      .stime = task("stime"),
      .sum_exec_runtime = task("se.sum_exec_runtime"),
      .before_user = task("prev_cputime.utime"),
      .before_system = task("prev_cputime.stime"),
      .policy = task("policy"),
      .rt_priority = task("rt_priority"),
      .thread_head = members.offset("signal_struct", "thread_head"),
      .nr_threads = members.offset("signal_struct", "nr_threads"),
  };
  VMSIGHT_TRY_VOID(members.check());
  return tasks;
}

TaskIdentity Tasks::identity(Reader& reader, GuestVirt task) const {
  return {task, static_cast<std::int32_t>(reader.u32(task + at_.pid)),
          reader.u64(task + at_.start_boottime)};
}

void Tasks::walk(Reader& reader, std::size_t limit, std::vector<TaskIdentity>& into) const {
  const GuestVirt head = init_task_ + at_.tasks;
  GuestVirt from = head, node = reader.pointer(head);
  while (node != head && reader.ok() && into.size() < limit) {
    // `next` before `prev`: if prev still names where we came from, next was on the list too.
    const GuestVirt next = reader.pointer(node);
    if (reader.pointer(node + 8) != from) return reader.set_fault(node);
    into.push_back(identity(reader, node - at_.tasks));
    from = node;
    node = next;
  }
  if (node == head && reader.pointer(head + 8) != from) reader.set_fault(head);
}

void Tasks::walk_forward(Reader& reader, std::size_t limit, std::vector<TaskIdentity>& into) const {
  walk_list(reader, init_task_ + at_.tasks, [&](GuestVirt node) {
    if (into.size() < limit) into.push_back(identity(reader, node - at_.tasks));
  });
}

void Tasks::walk_threads(Reader& reader, GuestVirt signal, std::vector<GuestVirt>& into) const {
  const GuestVirt head = signal + at_.thread_head;
  GuestVirt from = head, node = reader.pointer(head);
  for (std::size_t i = 0; node != head && reader.ok(); ++i) {
    const GuestVirt next = reader.pointer(node);
    if (i == max_threads || reader.pointer(node + 8) != from) return reader.set_fault(node);
    into.push_back(node - at_.thread_node);
    from = node;
    node = next;
  }
}

bool Tasks::is_listed(Reader& reader, GuestVirt task) const {
  return reader.u64(task + at_.tasks + 8) != list_poison;
}

char Tasks::state_letter(Reader& reader, GuestVirt task) const {
  const auto state = static_cast<std::uint32_t>(at_.state_size == 8 ? reader.u64(task + at_.state)
                                                                    : reader.u32(task + at_.state));
  if ((state & task_idle) == task_idle) return 'I';
  std::uint32_t shown = (state | reader.u32(task + at_.exit_state)) & task_report;
  if ((state & (task_rtlock | task_frozen)) != 0) shown = task_uninterruptible;
  return "RSDTtXZP"[std::bit_width(shown)];
}

}  // namespace vmsight
