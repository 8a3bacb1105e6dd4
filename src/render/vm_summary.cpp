// The `vm` object of a document, of a guest.
#include "host/vm_info.h"
#include "render/json.h"
#include "vmsight/guest.h"

namespace vmsight {

std::vector<Problem> problems_of(const Image& image) {
  std::vector<Problem> problems;
  for (const std::string& problem : image.problems) problems.push_back({"image", problem});
  return problems;
}

VmSummary summary_of(const Guest& guest) {
  VmSummary summary{.name = guest.name};
  if (guest.image) {
    summary.problems = problems_of(*guest.image);
    summary.memory_bytes = guest.ram().total_bytes();
    const std::size_t vcpus = guest.image->registers.size();
    if (vcpus != 0) summary.vcpus = static_cast<unsigned>(vcpus);
    return summary;
  }
  const VmInfo& vm = guest.vm->info();
  summary.pid = vm.pid;
  summary.accelerator = to_string(vm.accelerator);
  summary.vcpus = vm.vcpus;
  summary.memory_bytes = memory_of(*guest.vm);
  summary.machine = vm.machine;
  return summary;
}

}  // namespace vmsight
