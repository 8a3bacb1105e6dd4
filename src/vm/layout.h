// RAM blocks and RAM map of a running VM: told by the monitor where one can be used, derived from
// command line and maps otherwise; checked against each other when both are there.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vm/command_line.h"
#include "vmsight/vm.h"

namespace vmsight {

struct HostLayout {
  std::vector<RamBlock> blocks;
  RamMap ram;
  std::string_view source;   // "monitor" or "derived"
  std::string monitor_note;  // why the monitor was not used, "" if it was
  std::string ram_note;      // see Vm::ram_note
};

/// The error is that of deriving, if there is no monitor either.
Result<HostLayout> find_layout(const VmInfo& info, const CommandLine& line);

}  // namespace vmsight
