#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<LogRecord> log_fields[] = {
    field<&LogRecord::time_ns>("time_ns", "ns", "since the guest's boot"),
    field<&LogRecord::level>("level", "", "severity of syslog(2), 0 to 7"),
    field<&LogRecord::facility>("facility", "", "of syslog(3), 0 is the kernel"),
    field<&LogRecord::text>("text", "", "the line"),
    telling<&LogRecord::sequence>("sequence", "", "number of the record, from 0"),
};
constexpr Kind<LogRecord> log_table{.part = part_kernel_log,
                                    .key = "kernel_log",
                                    .name = "log",
                                    .added = "logged",
                                    .removed = "",
                                    .meaning = "records of the kernel log",
                                    .records = &State::kernel_log,
                                    .fields = log_fields,
                                    .comes_only = true};

}  // namespace

const Kind<LogRecord>& kind(const LogRecord*) { return log_table; }

}  // namespace vmsight
