// Reads the whole state through one kernel and one view, again and again.
#pragma once

#include <optional>

#include "kernel/read_log.h"
#include "state/cgroups.h"
#include "state/change_counts.h"
#include "state/cpus.h"
#include "state/guest_os.h"
#include "state/kernel_log.h"
#include "state/modules.h"
#include "state/mounts.h"
#include "state/net_devices.h"
#include "state/process_table.h"
#include "state/sockets.h"
#include "vmsight/state.h"

namespace vmsight {

class LinuxStateReader final : public StateReader {
 public:
  static Result<std::unique_ptr<LinuxStateReader>> create(Kernel& kernel, GuestMemory& memory);

  Result<void> read(const StateOptions& options, State& into) override;
  /// What is read for a state is noted there, but for what moves all the time.
  void record_to(ReadLog* log) { reader_.record_to(log); }

 private:
  LinuxStateReader(Kernel& kernel, GuestMemory& memory, ProcessesReader processes, Paths paths,
                   MountsReader mounts, ChangeCounts counts);

  Result<void> read_view(const StateOptions& options, State& into);
  Result<void> check_kernel();
  void begin_part(std::string_view name);
  Result<void> read_processes(Context& context);
  Result<void> read_mounts(Context& context);
  static void tell_broken(State& state, const std::vector<MountsReader::Broken>& broken);
  template <typename Part, typename... Needs>
  void read_part(Context& context, Part& part, unsigned flags, std::string_view name,
                 const Needs&... needs);

  Kernel& kernel_;
  GuestMemory& memory_;
  Reader reader_;
  ProcessesReader processes_;
  Paths paths_;
  MountsReader mounts_;
  ChangeCounts counts_;
  Shared shared_;
  ProcessTable table_;

  // A kernel may lack what one of these needs; the other parts can still be read.
  Result<OsReader> os_;
  Result<CpusReader> cpus_;
  Result<NetDevicesReader> net_devices_;
  Result<ModulesReader> modules_;
  Result<SocketsReader> sockets_;
  Result<KernelLogReader> kernel_log_;
  Result<CgroupsReader> cgroups_;

  std::vector<SocketFile> socket_files_;  // kept for its allocation
};

}  // namespace vmsight
