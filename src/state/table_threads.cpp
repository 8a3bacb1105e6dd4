#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<Thread> thread_fields[] = {
    telling<&Thread::pid>("pid", "", "of the thread, in the root PID namespace"),
    field<&Thread::tgid>("tgid", "", "of its process"),
    field<&Thread::comm>("comm", "", "name"),
    field<&Thread::state>("state", "", "letter of /proc/PID/stat"),
    field<&Thread::cpu>("cpu", "", "on which it runs, or ran"),
    field<&Thread::task>("task", "address", "its task_struct"),
    field<&Thread::stack>("stack", "address", "its kernel stack"),
    field<&Thread::uid>("uid", "", "real user"),
    field<&Thread::gid>("gid", "", "real group"),
    field<&Thread::euid>("euid", "", "effective user"),
    field<&Thread::egid>("egid", "", "effective group"),
    telling<&Thread::start_time_ns>("start_time_ns", "ns", "since the guest's boot"),
    field<&Thread::utime_ns>("utime_ns", "ns", "in user mode"),
    field<&Thread::stime_ns>("stime_ns", "ns", "in the kernel"),
    field<&Thread::nice>("nice", "", "-20 to 19"),
    field<&Thread::priority>("priority", "", "field 18 of /proc/PID/stat"),
    field<&Thread::policy>("policy", "", "SCHED_*"),
    field<&Thread::rt_priority>("rt_priority", "", "real-time priority"),
    field<&Thread::flags>("flags", "", "PF_*, field 9 of /proc/PID/stat"),
    field<&Thread::cwd>("cwd", "", "working directory"),
    field<&Thread::root>("root", "", "root directory"),
    told<Thread>(field<&Thread::files_of>("files_of", "", "the `tid` of its open files"),
                 [](const Thread& t, ValueSink& sink) {
                   t.files_of == 0 ? sink.null() : put_value(t.files_of, sink);
                 }),
};
constexpr Kind<Thread> thread_table{.part = part_threads,
                                    .key = "threads",
                                    .name = "thread",
                                    .added = "started",
                                    .removed = "ended",
                                    .meaning = "threads, where they are asked for",
                                    .records = &State::threads,
                                    .fields = thread_fields};

}  // namespace

const Kind<Thread>& kind(const Thread*) { return thread_table; }

}  // namespace vmsight
