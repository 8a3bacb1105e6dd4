// The kernel and the machine, as `lsmod`, `lscpu` and `uname` print them.
#pragma once

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

void print_modules(Output& out, const State& state, const TableOptions& options);

/// A summary; or a row a CPU.
/// Hierarchic: indented below headings, for people; else a plain line for each name.
void print_cpu_summary(Output& out, const State& state, bool hierarchic);
/// As `lscpu -e`; of `-p` with commas, without padding.
void print_cpu_table(Output& out, const State& state, const TableOptions& options);
void print_cpu_lines(Output& out, const State& state);

/// Which fields `uname` prints; none: the kernel's name.
struct UnameFormat {
  bool sysname = false, nodename = false, release = false, version = false, machine = false;
  bool operating_system = false;
};
void print_uname(Output& out, const OsInfo& os, const UnameFormat& format);

}  // namespace vmsight
