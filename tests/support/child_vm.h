// A "VM" that is a child process of the test: it has guest RAM as QEMU has it (anonymous, a
// shared or a private memfd) and does nothing. For testing views without QEMU.
#pragma once

#include <sys/types.h>

#include <functional>
#include <vector>

#include "base/os.h"
#include "support/stub_vm.h"

namespace vmsight::test {

struct ChildRange {
  GuestPhys start;
  std::uint64_t size = 0;
};

/// One RAM block that backs all ranges, one after the other, as QEMU's pc.ram does.
class ChildVm final : public StubVm {
 public:
  /// `work` runs in the child, with its RAM, and shall not return; without it the child sleeps.
  ChildVm(Backing backing, const std::vector<ChildRange>& ranges,
          const std::function<void(std::byte* ram)>& work = nullptr);
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

  Result<void> check_alive() const override;

 private:
  UniqueFd file_;
  Mapping mapping_;  // the child has it at the same address
  bool ended_ = false;
};

}  // namespace vmsight::test
