// Processes and threads as `ps` prints them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

enum class PsForest { none, spaces, arms };

struct PsFormat {
  /// Names of -o, each perhaps with a header of its own: "pid", "comm=NAME", "pid=". Empty: as
  /// `ps -ef`.
  std::vector<std::string> columns;
  std::string sort;                  // "-rss,pid"; empty: by PID
  bool threads = false;              // a row a thread
  PsForest forest = PsForest::none;  // children under their parents
  bool names_only = false;           // CMD is the name, not the command line
  TableOptions table;
};

/// Times are those of the guest at the moment of the view. usage, naming the known columns, if a
/// column does not exist.
Result<void> print_processes(Output& out, const State& state, const PsFormat& format);

/// Names of all columns, for help and completion.
std::vector<std::string_view> ps_column_names();

/// The command line as one text: `[name]` where there is none, `<defunct>` for zombies.
std::string command_text(const Process& process);

}  // namespace vmsight
