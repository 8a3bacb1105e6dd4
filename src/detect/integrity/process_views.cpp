// processes: who is in the list of tasks, in the table of PIDs, on a CPU, waiting for one, among the
// children of somebody, and in the memory that the kernel has for tasks. What is born or dies is in some of them only for a moment; section by section the
// kernel's order is: PID table, children, list - and all three are left under one lock.
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "detect/integrity/task_slabs.h"
#include "state/lists.h"
#include "state/tasks.h"

namespace vmsight {
namespace {

constexpr std::size_t max_tasks = 1U << 22;
constexpr unsigned walks = 5;
constexpr unsigned radix_slots = 64, radix_depth = 5;  // XA_CHUNK_SIZE; PIDs have 22 bits

struct TaskSource {
  std::string_view name, what;
};
enum : unsigned { in_list, in_pids, on_cpu, in_children, in_queue, in_slab, source_count };
constexpr TaskSource task_sources[] = {{"init_task.tasks", "the list of tasks"},
                                       {"init_pid_ns.idr", "the table of PIDs"},
                                       {"rq.curr", "the CPUs"},
                                       {"task_struct.children", "the children of any process"},
                                       {"rq.cfs_tasks", "the run queues"},
                                       {"task_struct_cachep", "the slabs of tasks"}};

struct TaskSeen {
  std::array<bool, source_count> in{};
};

class Views {
 public:
  static Result<Views> resolve(Look& look) {
    Views self(look);
    VMSIGHT_TRY(self.tasks_, Tasks::resolve(look.kernel));
    Members members(look.kernel);
    self.idr_ = members.symbol("init_pid_ns") + members.offset("pid_namespace", "idr") +
                members.offset("idr", "idr_rt") + members.offset("xarray", "xa_head");
    self.node_shift_ = members.offset("xa_node", "shift");
    self.node_slots_ = members.offset("xa_node", "slots");
    self.pid_tasks_ = members.offset("pid", "tasks");
    self.pid_links_ = members.offset("task_struct", "pid_links");
    self.children_ = members.offset("task_struct", "children");
    self.sibling_ = members.offset("task_struct", "sibling");
    self.curr_ = members.symbol("runqueues") + members.offset("rq", "curr");
    VMSIGHT_TRY_VOID(members.check());
    const Offset queue = members.find("rq", "cfs_tasks");
    self.queued_ = members.find("task_struct", "se.group_node");
    self.has_queues_ = queue != absent && self.queued_ != absent;
    if (self.has_queues_) self.queue_ = members.symbol("runqueues") + queue;
    return self;
  }

  Result<void> read() {
    VMSIGHT_TRY_VOID(read_list());
    VMSIGHT_TRY_VOID(read_pids());
    read_cpus();
    VMSIGHT_TRY_VOID(read_children());
    read_queues();
    return read_slabs();
  }

  void compare() {
    for (const auto& [task, seen] : seen_) compare(task, seen);
    look_.looked_at = seen_.size();
  }

 private:
  explicit Views(Look& look) : look_(look) {}
  Reader& reader() { return look_.reader; }

  Result<void> read_list() {
    std::vector<TaskIdentity> leaders;
    bool whole = false;
    for (unsigned i = 0; i < walks && !whole; ++i) {
      if (i > 0) reader().refetch();
      reader().begin_object();
      leaders.clear();
      tasks_.walk(reader(), max_tasks, leaders);
      whole = reader().ok();
    }
    if (!whole) {
      const GuestVirt broken = reader().fault().value_or(GuestVirt());
      reader().clear_fault();
      leaders.clear();
      tasks_.walk_forward(reader(), max_tasks, leaders);
      if (!reader().ok()) return unreadable("the list of tasks");
      look_.find({.what = fmt::format("the list of tasks does not hold together at {}", broken),
                  .object = fmt::format("init_task.tasks {}", broken),
                  .sources = {"init_task.tasks"},
                  .sureness = Sureness::likely,
                  .address = broken});
    }
    for (const TaskIdentity& leader : leaders) {
      seen_[leader.task].in[in_list] = true;
      std::vector<GuestVirt> threads;
      tasks_.walk_threads(reader(), reader().pointer(leader.task + tasks_.at().signal), threads);
      reader().clear_fault();  // a process that ends; its threads are missed, and looked for again
      for (const GuestVirt thread : threads) threads_.insert(thread);
    }
    return {};
  }

  Result<void> read_pids() {
    struct Level {
      std::uint64_t entry;
      unsigned depth;
    };
    std::vector<Level> left{{reader().u64(idr_), 0}};
    std::size_t count = 0;
    while (!left.empty() && reader().ok()) {
      const Level at = left.back();
      left.pop_back();
      if (at.entry == 0) continue;
      if (++count > max_tasks) return unreadable("the table of PIDs (it has no end)");
      if ((at.entry & 3) != 2) {
        add_pid(GuestVirt(at.entry));
        continue;
      }
      if (at.entry < 4096) continue;  // a retry entry of a tree that is being changed
      if (at.depth > radix_depth) return unreadable("the table of PIDs (it is too deep)");
      const GuestVirt node(at.entry & ~3ULL);
      for (unsigned i = 0; i < radix_slots; ++i)
        left.push_back({reader().u64(node + node_slots_ + i * 8), at.depth + 1});
    }
    return reader().ok() ? Result<void>() : unreadable("the table of PIDs");
  }

  void add_pid(GuestVirt pid) {
    const GuestVirt link = reader().pointer(pid + pid_tasks_);  // of PIDTYPE_PID, which is 0
    if (reader().ok() && link != GuestVirt()) seen_[link - pid_links_].in[in_pids] = true;
    reader().clear_fault();
  }

  void read_cpus() {
    for (std::size_t cpu = 0; cpu < look_.kernel.per_cpu_offsets().size(); ++cpu) {
      if (look_.kernel.per_cpu_offsets()[cpu] == 0) continue;
      const GuestVirt task = reader().pointer(look_.kernel.per_cpu(curr_, cpu));
      if (reader().ok() && task != GuestVirt()) seen_[task].in[on_cpu] = true;
      reader().clear_fault();
    }
  }

  /// Those that wait for a CPU. The lists change as fast as the guest runs: what of them cannot be read
  /// now is not missed, and a walk that was led to another CPU's list ends there.
  void read_queues() {
    std::set<GuestVirt> heads;
    const auto offsets = look_.kernel.per_cpu_offsets();
    for (std::size_t cpu = 0; has_queues_ && cpu < offsets.size(); ++cpu) {
      if (offsets[cpu] != 0) heads.insert(look_.kernel.per_cpu(queue_, cpu));
    }
    for (const GuestVirt head : heads) {
      std::size_t count = 0;
      walk_list(reader(), head, [&](GuestVirt node) {
        if (heads.contains(node) || ++count > max_tasks) return reader().set_fault(node);
        if (is_its_pids(node - queued_)) seen_[node - queued_].in[in_queue] = true;
      });
      reader().clear_fault();
    }
  }

  Result<void> read_slabs() {
    const auto limit = for_each_task_slot(look_.kernel, reader(), [&](GuestVirt task) {
      if (is_its_pids(task)) seen_[task].in[in_slab] = true;
    });
    reader().clear_fault();
    look_.note = limit ? *limit : limit.error().message;
    return {};
  }

  /// Whether the PID that a task says it has is its own. It is not of memory that was a task, or that
  /// becomes one: that is still the parent's copy.
  bool is_its_pids(GuestVirt task) {
    const GuestVirt pid = reader().pointer(task + tasks_.at().thread_pid);
    const bool is_one =
        reader().ok() && pid != GuestVirt() &&
        reader().pointer(pid + pid_tasks_) == task + pid_links_;  // PIDTYPE_PID is the first
    const bool readable = reader().ok();
    reader().clear_fault();
    return is_one && readable;
  }

  Result<void> read_children() {
    std::vector<GuestVirt> parents{tasks_.init_task()};
    for (const auto& [task, seen] : seen_) parents.push_back(task);
    for (const GuestVirt thread : threads_) parents.push_back(thread);
    std::set<GuestVirt> done;
    while (!parents.empty()) {
      const GuestVirt parent = parents.back();
      parents.pop_back();
      if (!done.insert(parent).second) continue;
      if (done.size() > max_tasks) return unreadable("the children of processes");
      std::size_t count = 0;
      walk_list(reader(), parent + children_, [&](GuestVirt node) {
        if (++count > max_tasks) return reader().set_fault(node);
        seen_[node - sibling_].in[in_children] = true;
        parents.push_back(node - sibling_);
      });
      reader().clear_fault();
    }
    return {};
  }

  struct Task {
    std::int32_t pid = 0, tgid = 0;
    std::uint32_t exit_state = 0, flags = 0;
    std::string comm;
    bool has_pid = false, has_signals = false;
  };
  std::optional<Task> read_task(GuestVirt at) {
    const Tasks::Offsets& to = tasks_.at();
    std::array<char, 16> comm;
    reader().clear_fault();
    Task task{.pid = static_cast<std::int32_t>(reader().u32(at + to.pid)),
              .tgid = static_cast<std::int32_t>(reader().u32(at + to.tgid)),
              .exit_state = reader().u32(at + to.exit_state),
              .flags = reader().u32(at + to.flags),
              .comm = std::string(reader().c_string(at + to.comm, comm)),
              .has_pid = reader().u64(at + to.thread_pid) != 0,
              .has_signals = reader().u64(at + to.sighand) != 0};
    const bool readable = reader().ok();
    reader().clear_fault();
    return readable ? std::optional(task) : std::nullopt;
  }

  void compare(GuestVirt at, TaskSeen seen) {
    constexpr std::uint32_t dead = 0x10;  // EXIT_DEAD
    constexpr std::uint32_t idle = 2;     // PF_IDLE
    const auto task = read_task(at);
    if (!task || at == tasks_.init_task() || task->pid == 0 || (task->flags & idle) != 0) return;
    if ((task->exit_state & dead) != 0 || !task->has_pid || !task->has_signals) return;
    const bool is_leader = task->pid == task->tgid;
    if (threads_.contains(at)) seen.in[in_list] = true;
    std::array<bool, source_count> expected{true, true, false, is_leader, false, false};
    if (!is_leader && !seen.in[in_list]) {
      // Threads are found by their process; whoever hides that hides them too, and is told itself.
      expected[in_list] = false;
    }
    std::string missing;
    Finding finding{.sureness = Sureness::certain, .address = at, .pid = task->pid};
    for (unsigned i = 0; i < source_count; ++i) {
      if (seen.in[i]) finding.sources.emplace_back(task_sources[i].name);
      if (expected[i] && !seen.in[i])
        missing.append(missing.empty() ? "" : " and ").append(task_sources[i].what);
    }
    if (missing.empty()) return;
    finding.what = fmt::format("process {} ({}) is not in {}", task->pid, task->comm, missing);
    finding.object = fmt::format("process {}", task->pid);
    look_.find(std::move(finding));
  }

  Look& look_;
  Tasks tasks_;
  GuestVirt idr_{}, curr_{};
  Offset node_shift_ = 0, node_slots_ = 0, pid_tasks_ = 0, pid_links_ = 0, children_ = 0,
         sibling_ = 0;
  GuestVirt queue_{};
  Offset queued_ = 0;
  bool has_queues_ = false;
  std::map<GuestVirt, TaskSeen> seen_;
  std::set<GuestVirt> threads_;
};

Result<void> check_processes(Look& look) {
  VMSIGHT_TRY(Views views, Views::resolve(look));
  VMSIGHT_TRY_VOID(views.read());
  views.compare();
  return {};
}

}  // namespace

extern const IntegrityCheck processes_check{
    .info = {.name = "processes",
             .what = "the list of tasks, the table of PIDs, CPUs, run queues, parents and slabs "
                     "tell the same",
             .family = "processes"},
    .run = check_processes,
};

}  // namespace vmsight
