#include "render/stacks.h"

#include "render/escape.h"

namespace vmsight {
namespace {

std::string frame_text(const StackFrame& frame) {
  std::string text = frame.reliable ? "[<0>] " : "[<0>] ? ";
  if (frame.symbol.empty()) return text + fmt::format("{:#x}", frame.address.raw());
  text += fmt::format("{}+{:#x}/{:#x}", for_terminal(frame.symbol), frame.offset, frame.size);
  return frame.module.empty() ? text : text + fmt::format(" [{}]", for_terminal(frame.module));
}

Json to_json(const StackFrame& frame) {
  return {{"address", json_address(frame.address.raw())},
          {"symbol", frame.symbol.empty() ? Json(nullptr) : json_text(frame.symbol)},
          {"offset", frame.offset},
          {"size", frame.size},
          {"module", frame.module.empty() ? Json(nullptr) : json_text(frame.module)},
          {"reliable", frame.reliable}};
}

}  // namespace

void print_stacks(Output& out, const std::vector<TaskStack>& stacks, bool titles) {
  for (const TaskStack& stack : stacks) {
    if (titles) out.print("{} {} ({})\n", stack.pid, for_terminal(stack.comm), stack.state);
    for (const StackFrame& frame : stack.frames) {
      out.print("{}{}\n", titles ? "  " : "", frame_text(frame));
    }
    if (!stack.problem.empty()) {
      out.print("{}({})\n", titles ? "  " : "", for_terminal(stack.problem));
    }
  }
}

Json to_json(const TaskStack& stack) {
  Json frames = Json::array();
  for (const StackFrame& frame : stack.frames) frames.push_back(to_json(frame));
  return {{"pid", stack.pid},
          {"tgid", stack.tgid},
          {"comm", json_text(stack.comm)},
          {"state", std::string(1, stack.state)},
          {"frames", std::move(frames)},
          {"problem", stack.problem.empty() ? Json(nullptr) : json_text(stack.problem)},
          {"system_call", stack.system_call ? Json(*stack.system_call) : Json(nullptr)}};
}

}  // namespace vmsight
