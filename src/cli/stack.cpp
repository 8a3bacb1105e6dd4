// vmsight stack VM [PID...]: kernel stacks of tasks.
#include <algorithm>

#include "cli/attach.h"
#include "cli/filters.h"
#include "cli/stack_reader.h"
#include "render/stacks.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

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
