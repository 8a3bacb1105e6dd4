// Pages of a QEMU process by process_vm_readv, many in a call.
//
// page() of a shared backing: a page that was never populated is allocated by reading it, as it
// would be by the guest itself. Pages that kernel pointers lead to are populated, so reads of
// pages do not look first; scan() and populated(), which go everywhere, never allocate.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <vector>

#include "view/file_runs.h"
#include "view/page_source.h"
#include "vmsight/vm.h"

namespace vmsight {

class ProcessReads final : public PageSource {
 public:
  /// `vm` must outlive the source. permission (with a hint) or vm_gone if the process cannot be
  /// read at all.
  static Result<std::unique_ptr<ProcessReads>> open(const Vm& vm);

  /// From now on reads this process, which has guest RAM at the same addresses: a copy of the VM's
  /// process that stands still, or that process itself again.
  Result<void> read_from(pid_t pid);

  const RamMap& ram() const override { return vm_.ram(); }
  Result<void> read(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override { return vm_.check_alive(); }
  std::uint64_t calls() const override { return calls_ + files_.calls(); }
  bool is_live() const override { return pid_ == vm_.info().pid; }
  bool is_passive() const override { return true; }
  Result<ReadRights> prepare() override { return ReadRights{.suffice = true, .process = pid_}; }
  std::string_view technique() const override { return "live-read"; }

 private:
  explicit ProcessReads(const Vm& vm) : vm_(vm), pid_(vm.info().pid) {}

  Result<void> check_rights() const;
  HostVirt host(GuestPhys address);
  Result<std::size_t> transfer(std::span<FreshRead> reads);
  Result<void> copy(const RamRange& range, GuestPhys from, std::span<std::byte> into);
  Result<void> scan_process(const RamRange& range, GuestPhys from, std::span<std::byte> into);
  Result<std::vector<PhysRange>> present(const RamRange& range, GuestPhys from,
                                         std::uint64_t size) const;
  Error read_error(int err) const;

  const Vm& vm_;
  pid_t pid_;         // of the process that is read
  FileRuns files_;    // shared RAM
  UniqueFd pagemap_;  // /proc/PID/pagemap
  std::vector<iovec> local_, remote_;
  const RamRange* last_range_ = nullptr;
  std::uint64_t calls_ = 0;
};

}  // namespace vmsight
