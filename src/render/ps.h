// Processes and threads as `ps` prints them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

struct PsFormat {
  std::vector<std::string> columns;  // names of -o; empty: as `ps -ef`
  std::string sort;                  // "-rss,pid"; empty: by PID
  bool threads = false;              // a row a thread
  bool forest = false;               // children under their parents
  TableOptions table;
  std::int64_t now_unix_ns = 0;  // decides how STIME is written
};

/// usage, naming the known columns, if a column does not exist.
Result<void> print_processes(Output& out, const State& state, const PsFormat& format);

/// Names of all columns, for help and completion.
std::vector<std::string_view> ps_column_names();

/// The command line as one text: `[name]` where there is none, `<defunct>` for zombies.
std::string command_text(const Process& process);

}  // namespace vmsight
