#include "vmsight/state.h"

namespace vmsight {

namespace {
/// A hostile guest can make anything fail; nobody reads more than this.
constexpr std::size_t max_problems = 1000;
}  // namespace

std::string_view to_string(Consistency consistency) {
  switch (consistency) {
    case Consistency::none:
      return "none";
    case Consistency::proof:
      return "proof";
    case Consistency::halt:
      return "halt";
    case Consistency::snapshot:
      break;
  }
  return "snapshot";
}

std::string_view to_string(Validity validity) {
  switch (validity) {
    case Validity::live:
      return "live";
    case Validity::fresh:
      return "fresh";
    case Validity::zombie:
      return "zombie";
    case Validity::dying:
      return "dying";
    case Validity::as_good_as_dead:
      return "as-good-as-dead";
    case Validity::torn:
      return "torn";
  }
  return "torn";
}

void State::clear() {
  view = {};
  os = {};
  cpus.clear();
  net_devices.clear();
  modules.clear();
  processes.clear();
  threads.clear();
  open_files.clear();
  memory_maps.clear();
  sockets.clear();
  mounts.clear();
  kernel_log.clear();
  cgroups.clear();
  problems.clear();
  arena.clear();
  problems_left_out = 0;
}

void State::problem(std::string where, std::string what) {
  if (problems.size() < max_problems) {
    problems.push_back({std::move(where), std::move(what)});
    return;
  }
  problems.back() = {"problems", fmt::format("{} more were left out", ++problems_left_out)};
}

}  // namespace vmsight
