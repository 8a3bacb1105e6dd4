#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<FileFacts> file_facts_fields[] = {
    field<&FileFacts::type>("type", "", "REG, DIR ..."),
    field<&FileFacts::inode>("inode", "", "number of the file"),
    told<FileFacts>(field<&FileFacts::device>("device", "", "of its file system, major:minor"),
                    [](const FileFacts& f, ValueSink& sink) { put_device(f.device, sink); }),
    field<&FileFacts::size>("size", "bytes", "of the file"),
    field<&FileFacts::links>("links", "", "hard links"),
};

/// A kworker is called after what it works on, which changes all the time.
bool is_renamed(const Process& a, const Process& b) {
  const auto name = [](const Process& p) { return p.kernel_thread ? std::string_view() : p.comm; };
  return name(a) != name(b);
}

constexpr Field<Process> comm_field() {
  auto made = field<&Process::comm>("comm", "", "name, whole");
  made.changed = is_renamed;
  return made;
}

constexpr Field<Process> process_fields[] = {
    telling<&Process::pid>("pid", "", "in the root PID namespace"),
    field<&Process::tgid>("tgid", "", "thread group"),
    changing<&Process::ppid>("ppid", "", "parent"),
    comm_field(),
    changing<&Process::cmdline>("cmdline", "", "arguments"),
    field<&Process::state>("state", "", "letter of /proc/PID/stat"),
    changing<&Process::uid>("uid", "", "real user"),
    changing<&Process::gid>("gid", "", "real group"),
    changing<&Process::euid>("euid", "", "effective user"),
    field<&Process::kernel_thread>("kernel_thread", "", "whether it is one"),
    field<&Process::threads>("threads", "", "how many"),
    telling<&Process::start_time_ns>("start_time_ns", "ns", "since the guest's boot"),
    field<&Process::utime_ns>("utime_ns", "ns", "in user mode, all threads"),
    field<&Process::stime_ns>("stime_ns", "ns", "in the kernel, all threads"),
    field<&Process::rss_bytes>("rss_bytes", "bytes", "in RAM"),
    field<&Process::vsize_bytes>("vsize_bytes", "bytes", "address space in use"),
    changing<&Process::exe>("exe", "", "program"),
    field<&Process::cwd>("cwd", "", "working directory"),
    changing<&Process::pidns>("pidns", "", "PID namespace"),
    changing<&Process::mntns>("mntns", "", "mount namespace"),
    changing<&Process::netns>("netns", "", "network namespace"),
    field<&Process::ns_pids>("ns_pids", "", "PIDs from the root namespace inwards"),
    told<Process>(
        field<&Process::flags>("validity", "", "live, fresh, zombie, dying, as-good-as-dead, torn"),
        [](const Process& p, ValueSink& sink) { sink.text(to_string(p.validity)); }),
    changing<&Process::egid>("egid", "", "effective group"),
    field<&Process::suid>("suid", "", "saved user"),
    field<&Process::sgid>("sgid", "", "saved group"),
    field<&Process::fsuid>("fsuid", "", "user for file systems"),
    field<&Process::fsgid>("fsgid", "", "group for file systems"),
    field<&Process::root>("root", "", "root directory"),
    field<&Process::utsns>("utsns", "", "namespace of host names"),
    field<&Process::tty_nr>("tty_nr", "", "terminal, field 7 of /proc/PID/stat"),
    field<&Process::session>("session", "", "session"),
    field<&Process::pgrp>("pgrp", "", "process group"),
    field<&Process::nice>("nice", "", "-20 to 19"),
    field<&Process::priority>("priority", "", "field 18 of /proc/PID/stat"),
    field<&Process::cpu>("cpu", "", "on which it runs, or ran"),
    field<&Process::task>("task", "address", "its task_struct"),
    field<&Process::flags>("flags", "", "PF_*, field 9 of /proc/PID/stat"),
    field<&Process::tpgid>("tpgid", "", "foreground process group of its terminal, else -1"),
    field<&Process::policy>("policy", "", "SCHED_*"),
    field<&Process::rt_priority>("rt_priority", "", "real-time priority"),
    field<&Process::locked_bytes>("locked_bytes", "bytes", "locked in RAM"),
    field<&Process::exe_file>("exe_file", "", "what stat(2) says of exe"),
    field<&Process::cwd_file>("cwd_file", "", "... of cwd"),
    field<&Process::root_file>("root_file", "", "... of root"),
    told<Process>(
        changing<&Process::cgroups>("cgroups", "",
                                    "lines of /proc/PID/cgroup; null unless cgroups are read"),
        [](const Process& p, ValueSink& sink) {
          p.cgroups.empty() ? sink.null() : put_value(p.cgroups, sink);
        },
        ValueType::texts),
};
constexpr Kind<Process> process_table{.part = part_processes,
                                      .key = "processes",
                                      .name = "process",
                                      .added = "started",
                                      .removed = "ended",
                                      .meaning = "processes and kernel threads",
                                      .records = &State::processes,
                                      .fields = process_fields};

}  // namespace

const Kind<Process>& kind(const Process*) { return process_table; }
std::span<const Field<FileFacts>> fields_of(const FileFacts&) { return file_facts_fields; }

}  // namespace vmsight
