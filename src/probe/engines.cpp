// The table of engines.
#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "kernel/escape.h"
#include "vmsight/probe.h"

namespace vmsight {
namespace {

struct Engine {
  std::string_view name;
  Result<std::unique_ptr<ProbeEngine>> (*open)(const EngineSetting& setting);
};

/// The cheapest for the guest first.
constexpr std::array engines{
    Engine{"kvm", open_kvm_engine},
    Engine{"gdbstub", open_gdbstub_engine},
};

}  // namespace

std::vector<std::string_view> engine_names() {
  std::vector<std::string_view> names;
  for (const Engine& engine : engines) names.push_back(engine.name);
  return names;
}

Result<std::unique_ptr<ProbeEngine>> open_engine(const EngineSetting& setting,
                                                 std::string_view name) {
  std::optional<Error> why;
  for (const Engine& engine : engines) {
    if (name != "auto" && name != engine.name) continue;
    auto opened = engine.open(setting);
    if (opened) return opened;
    why = std::move(opened).error();  // of several the last: it is the one that asks for least
  }
  if (why) return *why;
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("no engine is called '{}'", escape_bytes(name)),
               .hint = fmt::format("engines are auto, {}", fmt::join(engine_names(), ", "))};
}

}  // namespace vmsight
