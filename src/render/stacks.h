// Kernel stacks as /proc/PID/stack shows them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "render/json.h"
#include "render/output.h"
#include "vmsight/state.h"

namespace vmsight {

struct StackFrame {
  GuestVirt address;
  std::string symbol;                  // "" if it is in none
  std::string module;                  // "" for the kernel itself
  std::uint64_t offset = 0, size = 0;  // within the symbol
  bool reliable = true;
};

struct TaskStack {
  std::int32_t pid = 0, tgid = 0;
  std::string comm;
  char state = '?';
  std::vector<StackFrame> frames;  // innermost first
  std::string problem;             // why it is not complete, "" if it is
  std::optional<std::uint64_t> system_call;
};

/// Lines of /proc/PID/stack: "[<0>] do_nanosleep+0x6a/0x1a0 [module]"; titles name the tasks.
void print_stacks(Output& out, const std::vector<TaskStack>& stacks, bool titles);
Json to_json(const TaskStack& stack);

}  // namespace vmsight
