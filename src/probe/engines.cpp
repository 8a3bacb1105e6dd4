// The table of engines.
#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "kernel/guest_text.h"
#include "probe/engine.h"

namespace vmsight {
namespace {

/// The cheapest for the guest first.
constexpr std::array<const EngineInfo*, 2> engines{&kvm_engine, &gdbstub_engine};

}  // namespace

std::span<const EngineInfo* const> all_engines() { return engines; }

std::vector<std::string_view> engine_names() {
  std::vector<std::string_view> names;
  for (const EngineInfo* engine : engines) names.push_back(engine->name);
  return names;
}

std::vector<EngineStatus> engine_status(const Vm& vm) {
  std::vector<EngineStatus> all;
  for (const EngineInfo* engine : engines) {
    EngineStatus status{
        .abilities = engine->abilities(vm.info()), .what = engine->what, .cost = engine->cost};
    auto checked = engine->check(vm.info());
    status.usable = checked.has_value();
    if (!checked) {
      status.reason = std::move(checked.error().message);
      status.hint = std::move(checked.error().hint);
    }
    all.push_back(std::move(status));
  }
  return all;
}

Result<std::unique_ptr<ProbeEngine>> open_engine(const EngineSetting& setting,
                                                 std::string_view name) {
  std::optional<Error> why;
  for (const EngineInfo* engine : engines) {
    if (name != "auto" && name != engine->name) continue;
    auto opened = engine->open(setting);
    if (opened) return opened;
    why = std::move(opened).error();  // of several the last: it is the one that asks for least
  }
  if (why) return *why;
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("no engine is called '{}'", escape_bytes(name)),
               .hint = fmt::format("engines are auto, {}", fmt::join(engine_names(), ", "))};
}

}  // namespace vmsight
