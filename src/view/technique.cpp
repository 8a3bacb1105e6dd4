// The table of techniques: their names, whether they work here, and opening one by name.
#include <array>

#include "vmsight/view.h"

namespace vmsight {
namespace {

struct Technique {
  std::string_view name;
  std::string_view what;
  Result<std::unique_ptr<GuestMemory>> (*open)(const Vm& vm);
};

/// "auto" takes the first that works.
constexpr std::array<Technique, 2> techniques{{
    {"live-map", "shared guest RAM mapped into our process", open_live_map},
    {"live-read", "batched process_vm_readv of any guest RAM", open_live_read},
}};

}  // namespace

std::vector<TechniqueStatus> technique_status(const Vm& vm) {
  std::vector<TechniqueStatus> all;
  for (const Technique& technique : techniques) {
    TechniqueStatus status{.name = technique.name, .what = technique.what};
    // Opening changes nothing in the VM, so trying is the most honest test.
    if (auto memory = technique.open(vm)) {
      status.usable = true;
    } else {
      status.reason = memory.error().message;
      status.hint = memory.error().hint;
    }
    all.push_back(std::move(status));
  }
  return all;
}

Result<std::unique_ptr<GuestMemory>> open_view(const Vm& vm, std::string_view name) {
  std::string names = "auto";
  std::optional<Error> last;
  for (const Technique& technique : techniques) {
    names.append(", ").append(technique.name);
    if (name != "auto" && name != technique.name) continue;
    auto memory = technique.open(vm);
    if (memory || name != "auto") return memory;
    last = memory.error();
  }
  if (last) return *std::move(last);
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("open a view: no technique is called \"{}\"", name),
               .hint = "techniques: " + names};
}

}  // namespace vmsight
