// What is asked of a VM's QEMU monitor. Only questions: nothing here changes the guest.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "host/command_line.h"
#include "qemu/qmp.h"
#include "vmsight/vm.h"

namespace vmsight {

/// A client of one of the VM's QMP sockets. unsupported, with the reason for each socket, if
/// none answers; the monitor of a libvirt domain belongs to libvirt and is not touched.
Result<QmpClient> connect_monitor(const VmInfo& info);

/// Guest RAM as QEMU has it now, hot-plugged memory included.
struct MonitorLayout {
  std::vector<RamRange> ranges;
  std::vector<RamBlock> blocks;  // name, size and host address; how it is backed is not asked
};
Result<MonitorLayout> ask_layout(QmpClient& monitor, const CommandLine& line);

Result<std::vector<VcpuRegisters>> ask_registers(QmpClient& monitor);

}  // namespace vmsight
