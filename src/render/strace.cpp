#include "render/strace.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <utility>

#include "probe/flags.h"
#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

constexpr std::size_t result_column = 40;
constexpr std::uint64_t max_error = 4095;                         // MAX_ERRNO
constexpr std::uint64_t first_restart = 512, last_restart = 516;  // of the kernel's own errors

const ProbeArgument* find(const ProbeEvent& event, std::string_view name) {
  const auto at =
      std::find_if(event.arguments.begin(), event.arguments.end(),
                   [&](const ProbeArgument& argument) { return argument.name == name; });
  return at == event.arguments.end() || !at->known ? nullptr : &*at;
}

std::string result_text(const ProbeArgument& result) {
  if (!result.known) return "?";
  const std::uint64_t error = 0 - result.number;
  if (result.names.empty() || error > max_error) return result.text;
  // strace's words: what the call gives is not decided yet.
  if (error >= first_restart && error <= last_restart)
    return fmt::format("? {} (To be restarted)", result.names);
  const char* description = ::strerrordesc_np(static_cast<int>(error));
  return fmt::format("-1 {} ({})", result.names, description == nullptr ? "unknown" : description);
}

std::string call_text(const ProbeEvent& event) {
  std::string text = abi_text(event) + for_terminal(event.function) + "(";
  const char* comma = "";
  for (const ProbeArgument& argument : event.arguments) {
    if (argument.unused) continue;
    text += std::exchange(comma, ", ") + argument.text;
  }
  text += ')';
  if (text.size() < result_column - 1) text.resize(result_column - 1, ' ');
  return text + " = " + (event.result == nullptr ? "?" : result_text(*event.result));
}

/// The low seven bits say which signal ended it, the next bit whether a core was dumped, as wait()
/// tells it.
std::string exit_text(std::uint64_t code) {
  const std::uint64_t number = code & 0x7f;
  if (number == 0) return fmt::format("+++ exited with {} +++", code >> 8 & 0xff);
  std::string name = flag_names(FlagKind::signal, number);
  if (name.empty()) name = fmt::format("signal {}", number);
  return fmt::format("+++ killed by {}{} +++", name, (code & 0x80) != 0 ? " (core dumped)" : "");
}

}  // namespace

std::string abi_text(const ProbeEvent& event) {
  return event.abi.empty() ? "" : fmt::format("[{}] ", event.abi);
}

std::string strace_text(const ProbeEvent& event) {
  if (event.function == exit_function) {
    if (const ProbeArgument* code = find(event, "code")) return exit_text(code->number);
  }
  if (event.function == signal_function) {
    if (const ProbeArgument* signal = find(event, "ksig.sig"))
      return fmt::format("--- {} ---", signal->text);
  }
  std::string text = call_text(event);
  if (event.hit.at_return) text += fmt::format(" <{}>", duration(event.hit.duration_ns));
  return text;
}

}  // namespace vmsight
