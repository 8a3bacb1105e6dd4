#include "guard/halt_service.h"

namespace vmsight {

using nlohmann::json;

Result<std::uint64_t> HaltService::serve(const GuardQuestion& question) {
  if (question.request == GuardRequest::halt) {
    VMSIGHT_TRY(const auto lease, parse_lease(question.argument, longest_ms_));
    VMSIGHT_TRY_VOID(halt_.halt(lease));
    return std::uint64_t{1};
  }
  if (question.request != GuardRequest::resume) return unknown_request();
  return halt_.resume();
}

Result<std::unique_ptr<VcpuHalt>> make_vcpu_halt(const ServiceSetup& setup) {
  VMSIGHT_TRY(VcpuRoster vcpus, parse_roster(setup.vm.pid, setup.config));
  const json how = setup.config.value("how", json("ptrace"));
  if (how == "ptrace") return make_ptrace_halt(setup.vm, std::move(vcpus));
  std::vector<Freezing> ways;
  for (const Freezing& way : {freezing_v2, freezing_v1}) {
    if (how == "cgroups" || how == std::string(way.name)) ways.push_back(way);
  }
  if (!ways.empty()) return make_freezer_halt(setup.vm, std::move(vcpus), ways, setup.owner);
  return Error{.code = ErrorCode::usage, .message = "halt a VM: how is not known"};
}

Result<std::unique_ptr<Service>> make_halt_service(ServiceSetup&& setup) {
  VMSIGHT_TRY(auto how, make_vcpu_halt(setup));
  const json longest = setup.config.value("longest_ms", json(longest_lease_ms));
  if (!longest.is_number_unsigned()) return unknown_request();
  return std::unique_ptr<Service>(
      std::make_unique<HaltService>(std::move(how), longest.get<std::uint64_t>()));
}

}  // namespace vmsight
