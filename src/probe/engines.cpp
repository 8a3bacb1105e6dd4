// The table of engines.
#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "kernel/guest_text.h"
#include "vmsight/probe.h"

namespace vmsight {
namespace {

struct Engine {
  std::string_view name, what, cost;
  Result<void> (*check)(const VmInfo& vm);
  Result<std::unique_ptr<ProbeEngine>> (*open)(const EngineSetting& setting);
};

/// The cheapest for the guest first.
constexpr std::array engines{
    Engine{"kvm", "functions of the kernel and of programs, seen by eBPF in the host's kernel",
           "microseconds a hit; vCPUs never wait for us", check_kvm_engine, open_kvm_engine},
    Engine{"gdbstub", "any instruction, by breakpoints of QEMU's gdbstub",
           "the guest stands at each hit, some milliseconds", check_gdbstub_engine,
           open_gdbstub_engine},
};

}  // namespace

std::vector<std::string_view> engine_names() {
  std::vector<std::string_view> names;
  for (const Engine& engine : engines) names.push_back(engine.name);
  return names;
}

std::vector<EngineStatus> engine_status(const Vm& vm) {
  std::vector<EngineStatus> all;
  for (const Engine& engine : engines) {
    EngineStatus status{.name = engine.name, .what = engine.what, .cost = engine.cost};
    auto checked = engine.check(vm.info());
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
