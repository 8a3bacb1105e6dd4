// What all VMs of the tests have in common: facts that a test fills in, and no monitor.
#pragma once

#include <vector>

#include "vmsight/vm.h"

namespace vmsight::test {

class StubVm : public Vm {
 public:
  const VmInfo& info() const override { return info_; }
  const std::vector<RamBlock>& blocks() const override { return blocks_; }
  const RamMap& ram() const override { return ram_; }
  std::string_view ram_source() const override { return "derived"; }
  std::string ram_note() const override { return ""; }
  std::string monitor_note() const override { return "a test has no monitor"; }
  Result<void> check_alive() const override { return {}; }
  Result<std::vector<VcpuRegisters>> registers() override { return no_monitor(); }
  Result<std::string> run_state() override { return no_monitor(); }

 protected:
  static Error no_monitor() {
    return {.code = ErrorCode::unsupported, .message = "a test has no monitor"};
  }
  static Error ended() {
    return {.code = ErrorCode::vm_gone, .message = "the VM's process has ended"};
  }

  VmInfo info_;
  std::vector<RamBlock> blocks_;
  RamMap ram_;
};

}  // namespace vmsight::test
