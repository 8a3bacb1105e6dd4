// Any argument vector: parsed or refused, with bounded numbers.
#include "host/command_line.h"

#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> arguments;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    arguments.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const auto line = parse_command_line(arguments);
  if (line) VMSIGHT_CHECK(line->vcpus <= 65536 && !line->main_memory.empty());
  return 0;
}
