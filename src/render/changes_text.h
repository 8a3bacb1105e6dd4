// Changes between two states, as lines of text or of JSON.
#pragma once

#include <cstdint>

#include "render/output.h"
#include "state/changes.h"

namespace vmsight {

/// When the view was taken in which they were seen.
struct ChangeTime {
  std::uint64_t view = 0;      // number of the view, from 0
  std::uint64_t start_ns = 0;  // host's monotonic clock, as ViewInfo
  std::uint64_t since_ns = 0;  // since the first view
};

/// "TIME  CHANGE  KIND  WHAT"
void print_change_header(Output& out);

///     3.204  started   process  1234 sleep 10 (parent 1, uid 0)
void print_changes(Output& out, const Changes& changes, const ChangeTime& time);

/// An object a line, schema vmsight.change/1: {schema, view, time_ns, part, change, record,
/// before}. `part` is the key of the record's list in the state document, `change` is "added",
/// "removed" or "changed", `before` is null but for "changed".
void write_changes(Output& out, const Changes& changes, const ChangeTime& time);

/// The same two for "the guest runs another kernel now": everything is new after it.
void print_reboot(Output& out, std::string_view banner, const ChangeTime& time);
void write_reboot(Output& out, std::string_view banner, const ChangeTime& time);

}  // namespace vmsight
