#include "detect/integrity/module_baseline.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace vmsight {
namespace {

constexpr std::size_t max_packed_modules = 1U << 14;

Error broken() {
  return {.code = ErrorCode::bad_data, .message = "the baseline's file of modules is damaged"};
}

std::optional<ModuleCode> parse_module(std::string_view line) {
  const auto words = split_at(line, ' ');
  if (words.size() != 4) return std::nullopt;
  const auto load = parse_whole<std::uint64_t>(words[1], 16);
  const auto start = parse_whole<std::uint64_t>(words[2], 16);
  const auto size = parse_whole<std::uint64_t>(words[3], 16);
  if (!load || !start || !size || *size > max_baseline_text) return std::nullopt;
  ModuleCode module{std::string(words[0]), *load, GuestVirt(*start), {}};
  module.code.resize(*size);
  return module;
}

}  // namespace

std::vector<std::byte> pack_modules(const std::vector<ModuleCode>& modules) {
  std::string head;
  for (const ModuleCode& module : modules) {
    head += fmt::format("{} {:x} {:x} {:x}\n", module.name, module.load, module.start.raw(),
                        module.code.size());
  }
  head += '\n';
  const auto bytes = std::as_bytes(std::span(head));
  std::vector<std::byte> packed(bytes.begin(), bytes.end());
  for (const ModuleCode& module : modules)
    packed.insert(packed.end(), module.code.begin(), module.code.end());
  return packed;
}

Result<std::vector<ModuleCode>> unpack_modules(std::span<const std::byte> packed) {
  std::string_view left(reinterpret_cast<const char*>(packed.data()), packed.size());
  std::vector<ModuleCode> modules;
  std::uint64_t all = 0;
  while (true) {
    const std::size_t end = left.find('\n');
    if (end == left.npos || modules.size() > max_packed_modules) return broken();
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(end + 1);
    if (line.empty()) break;
    auto module = parse_module(line);
    if (!module || (all += module->code.size()) > packed.size()) return broken();
    modules.push_back(*std::move(module));
  }
  if (all != left.size()) return broken();
  for (ModuleCode& module : modules) {
    const auto code = std::as_bytes(std::span(left.substr(0, module.code.size())));
    std::ranges::copy(code, module.code.begin());
    left.remove_prefix(module.code.size());
  }
  return modules;
}

}  // namespace vmsight
