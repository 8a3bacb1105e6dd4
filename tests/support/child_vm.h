// A "VM" that is a child process of the test: it has guest RAM as QEMU has it (anonymous, a
// shared or a private memfd) and does nothing. For testing views without QEMU.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/os.h"
#include "vmsight/vm.h"

namespace vmsight::test {

struct ChildRange {
  GuestPhys start;
  std::uint64_t size = 0;
};

/// One RAM block that backs all ranges, one after the other, as QEMU's pc.ram does.
class ChildVm final : public Vm {
 public:
  ChildVm(Backing backing, const std::vector<ChildRange>& ranges);
  ~ChildVm() override { end(); }

  /// Writes to the child's memory, as the guest would.
  void poke(GuestPhys to, std::span<const std::byte> bytes);
  template <typename T>
  void put(GuestPhys to, const T& value) {
    poke(to, std::as_bytes(std::span(&value, 1)));
  }
  /// Kills the child.
  void end();
  /// The memfd; -1 for anonymous RAM.
  int file() const { return file_.get(); }
  /// 512-byte blocks that the host has allocated to the memfd.
  std::uint64_t file_blocks() const;

  const VmInfo& info() const override { return info_; }
  const std::vector<RamBlock>& blocks() const override { return blocks_; }
  const RamMap& ram() const override { return ram_; }
  std::string_view ram_source() const override { return "derived"; }
  std::string monitor_note() const override { return "a test has no monitor"; }
  Result<void> check_alive() const override;
  Result<std::vector<VcpuRegisters>> registers() override { return no_monitor(); }
  Result<std::string> run_state() override { return no_monitor(); }

 private:
  static Error no_monitor() {
    return Error{.code = ErrorCode::unsupported, .message = "a test has no monitor"};
  }
  UniqueFd file_;
  Mapping mapping_;  // the child has it at the same address
  VmInfo info_;
  std::vector<RamBlock> blocks_;
  RamMap ram_;
  bool ended_ = false;
};

}  // namespace vmsight::test
