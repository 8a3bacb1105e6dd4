// RAM blocks and RAM map of a running VM: told by the monitor where one can be used, derived from
// command line and maps otherwise; checked against each other when both are there.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/command_line.h"
#include "host/host_maps.h"
#include "vmsight/vm.h"

namespace vmsight {

struct HostLayout {
  std::vector<RamBlock> blocks;
  RamMap ram;
  std::string_view source;   // "monitor" or "derived"
  std::string monitor_note;  // why the monitor was not used, "" if it was
  std::string ram_note;      // see Vm::ram_note
};

struct BlocksAndMap {
  std::vector<RamBlock> blocks;
  RamMap ram;
};
using ReadText = std::function<Result<std::string>()>;

/// From command line and maps alone. `read_smaps` is called only if maps are not enough.
Result<BlocksAndMap> derive_layout(const CommandLine& line, std::span<const HostMapping> maps,
                                   const ReadText& read_smaps);

/// Adds what was plugged in since the start, where the command line has room for it. True if
/// there was any: its place then is a guess.
Result<bool> add_plugged(const CommandLine& line, const ReadText& read_smaps, BlocksAndMap& layout);

/// The error is that of deriving, if there is no monitor either.
Result<HostLayout> find_layout(const VmInfo& info, const CommandLine& line);

}  // namespace vmsight
