// vmsight stack VM [PID...]: kernel stacks of tasks.
#include <algorithm>

#include "cli/attach.h"
#include "cli/filters.h"
#include "cli/frame_names.h"
#include "kernel/architecture.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

/// Unwinds tasks one by one. A task of a live guest may run meanwhile: its context switches are
/// counted before and after, and a stack that moved is taken again.
class StackReader {
 public:
  static Result<StackReader> create(Guest& guest, bool all_frames) {
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

  TaskStack read(const Thread& thread) {
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

 private:
  static constexpr unsigned attempts = 3;

  explicit StackReader(Guest& guest)
      : guest_(&guest), reader_(std::make_unique<Reader>(*guest.memory, guest.kernel->space())) {}

  /// Straight from the guest; empty if it cannot be read.
  std::vector<std::uint64_t> switches(GuestVirt task) {
    std::vector<std::uint64_t> counts(switches_.size());
    std::vector<FreshRead> reads;
    for (std::size_t i = 0; i < switches_.size(); ++i) {
      const auto at =
          guest_->kernel->space().translate(*guest_->memory, task + switches_[i].offset);
      if (!at) return {};
      reads.push_back({*at, std::as_writable_bytes(std::span(&counts[i], 1))});
    }
    return guest_->memory->read_fresh(reads) ? counts : std::vector<std::uint64_t>{};
  }

  void fill(TaskStack& stack, const KernelStack& unwound) {
    stack.frames.clear();
    for (const Frame& frame : unwound.frames) {
      if (!in_scheduler(frame.pc)) stack.frames.push_back(named(frame));
    }
    stack.problem = unwound.complete ? "" : std::string(unwound.stopped);
    stack.system_call = unwound.system_call;
  }

  /// The functions that wait: /proc/PID/stack leaves them out too.
  bool in_scheduler(GuestVirt address) const {
    return scheduler_ && address >= scheduler_->first && address < scheduler_->second;
  }

  StackFrame named(const Frame& frame) { return name_frame(*guest_->kernel, symbols_, frame); }

  Guest* guest_;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<StackUnwinder> unwinder_;
  std::span<const Symbol> symbols_;
  std::vector<Member> switches_;
  std::optional<std::pair<GuestVirt, GuestVirt>> scheduler_;  // .sched.text
};

class Stack : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("PID", pids_, "processes or threads of the guest")->group("Arguments");
    app.add_flag("-a,--all", all_, "all tasks, threads too")->group(filter_group);
    app.add_flag("-T,--threads", threads_, "all threads of the processes")->group(filter_group);
    app.add_flag("-s,--scheduler", scheduler_, "the scheduler's own functions too")
        ->group(format_group);
  }

  Result<void> run(Session& session) override {
    if (pids_.empty() && !all_) {
      return usage_error("stack: no PID given", "give PIDs of the guest, or --all");
    }
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      State state;
      VMSIGHT_TRY_VOID(read_state(guest, {.parts = part_processes | part_threads}, state));
      VMSIGHT_TRY(const auto tasks, wanted_tasks(state));
      VMSIGHT_TRY(StackReader reader, StackReader::create(guest, scheduler_));
      std::vector<TaskStack> stacks;
      VMSIGHT_TRY_VOID(in_one_view(*guest.memory, [&]() -> Result<void> {
        for (const Thread& thread : tasks) stacks.push_back(reader.read(thread));
        return {};
      }));
      if (session.common.json)
        print_json(session.out, guest, stacks);
      else
        print_stacks(session.out, stacks, session.common.headers && (all_ || stacks.size() > 1));
      return {};
    });
  }

 private:
  bool wanted(const Thread& thread) const {
    return all_ || among(pids_, thread.pid) || (threads_ && among(pids_, thread.tgid));
  }

  Result<std::vector<Thread>> wanted_tasks(const State& state) const {
    std::vector<Thread> tasks;
    for (const Thread& thread : state.threads) {
      if (wanted(thread)) tasks.push_back(thread);
    }
    for (std::int32_t pid : pids_) {
      const auto is_it = [&](const Thread& thread) { return thread.pid == pid; };
      if (std::none_of(tasks.begin(), tasks.end(), is_it)) return no_such_pid(pid);
    }
    return tasks;
  }

  static void print_json(Output& out, const Guest& guest, const std::vector<TaskStack>& stacks) {
    Json list = Json::array();
    for (const TaskStack& stack : stacks) list.push_back(to_json(stack));
    out.print("{}\n", dump({{"schema", "vmsight.stack/1"},
                            {"vm", to_json(summary_of(guest))},
                            {"stacks", std::move(list)}}));
  }

  std::vector<std::int32_t> pids_;
  bool all_ = false, threads_ = false, scheduler_ = false;
};

}  // namespace

extern const VerbInfo stack_verb{
    .name = "stack",
    .group = "What is in the guest",
    .arguments = "VM PID... [options]",
    .summary = "Kernel stacks of tasks that do not run",
    .examples =
        "  vmsight stack web1 1\n"
        "  vmsight stack web1 --all --json | jq '.stacks[] | select(.state == \"D\")'\n",
    .make = make_verb<Stack>,
};

}  // namespace vmsight
