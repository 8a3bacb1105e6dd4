// A case: a directory with what is known at an alarm.
#pragma once

#include <string>

#include "detect/alarm.h"
#include "watch/guest_watch.h"

namespace vmsight {

/// Writes to the directory, which is there and empty: alarm.json, state.json (`vmsight state --json`), dmesg
/// (the kernel log), stacks (of the process that the alarm is about, or of all tasks if of none). Reads the
/// guest, and changes nothing in it. What could not be read is left out, and the first error returned.
Result<void> write_case(const std::string& folder, const detect::Alarm& alarm,
                        detect::GuestWatch& guest);

}  // namespace vmsight
