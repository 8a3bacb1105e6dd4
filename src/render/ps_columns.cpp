#include "render/ps_columns.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "base/units.h"
#include "render/escape.h"
#include "render/format.h"
#include "render/ps_text.h"

namespace vmsight {
namespace {

constexpr const char* unread = "?";
constexpr std::uint32_t policy_fifo = 1, policy_rr = 2;  // include/uapi/linux/sched.h

template <typename T>
std::string number(const std::optional<T>& value) {
  return value ? fmt::format_int(*value).str() : std::string(unread);
}
std::string number(std::int64_t value) { return fmt::format_int(value).str(); }
std::string kib(const std::optional<std::uint64_t>& bytes) {
  return number(static_cast<std::int64_t>(bytes.value_or(0) / 1024));
}
std::string shown(std::string_view value) {
  return value.data() == nullptr ? "-" : std::string(value);
}

// ---- what a row is of: a thread, or a whole process ----

const Process& process_of(const PsRow& row) { return *row.process; }

/// A member that a thread has of its own.
template <typename T>
T own(const PsRow& row, T Process::*of_process, T Thread::*of_thread) {
  return row.thread != nullptr ? row.thread->*of_thread : row.process->*of_process;
}
std::int32_t task_pid(const PsRow& row) { return own(row, &Process::pid, &Thread::pid); }
std::string_view task_comm(const PsRow& row) { return own(row, &Process::comm, &Thread::comm); }
char task_state(const PsRow& row) { return own(row, &Process::state, &Thread::state); }
std::int32_t task_cpu(const PsRow& row) { return own(row, &Process::cpu, &Thread::cpu); }
std::int32_t task_nice(const PsRow& row) { return own(row, &Process::nice, &Thread::nice); }
std::uint32_t task_policy(const PsRow& row) { return own(row, &Process::policy, &Thread::policy); }
std::uint32_t task_flags(const PsRow& row) { return own(row, &Process::flags, &Thread::flags); }
std::uint32_t task_rt_priority(const PsRow& row) {
  return own(row, &Process::rt_priority, &Thread::rt_priority);
}
std::int64_t task_priority(const PsRow& row) {
  return own(row, &Process::priority, &Thread::priority);
}
std::optional<std::uint32_t> task_euid(const PsRow& row) {
  return own(row, &Process::euid, &Thread::euid);
}
std::optional<std::uint32_t> task_egid(const PsRow& row) {
  return own(row, &Process::egid, &Thread::egid);
}
std::optional<std::uint32_t> task_uid(const PsRow& row) {
  return own(row, &Process::uid, &Thread::uid);
}
std::optional<std::uint32_t> task_gid(const PsRow& row) {
  return own(row, &Process::gid, &Thread::gid);
}
std::uint64_t start_ns(const PsRow& row) {
  return own(row, &Process::start_time_ns, &Thread::start_time_ns);
}
/// As ps has them from /proc: each of the two in whole hundredths of a second.
std::uint64_t cpu_ns(const PsRow& row) {
  constexpr std::uint64_t tick_ns = 10'000'000;
  return (own(row, &Process::utime_ns, &Thread::utime_ns) / tick_ns +
          own(row, &Process::stime_ns, &Thread::stime_ns) / tick_ns) *
         tick_ns;
}

// ---- times ----

std::uint64_t age_ns(const PsRow& row, const PsClock& clock) {
  const std::uint64_t start = start_ns(row);
  return clock.uptime_ns > start ? clock.uptime_ns - start : 0;
}

/// Tenths of a percent of one CPU since it started, as ps counts: by whole seconds.
std::uint64_t cpu_permille(const PsRow& row, const PsClock& clock) {
  const std::uint64_t seconds = age_ns(row, clock) / ns_per_s;
  return seconds == 0 ? 0 : cpu_ns(row) / 1'000'000 / seconds;
}

std::int64_t share_key(const PsRow& row, const PsClock& clock) {
  return static_cast<std::int64_t>(cpu_permille(row, clock));
}

std::string cpu_whole(const PsRow& row, const PsClock& clock) {
  return number(
      static_cast<std::int64_t>(std::min<std::uint64_t>(cpu_permille(row, clock) / 10, 99)));
}

std::string permille(std::uint64_t value) {
  return value > 999 ? number(static_cast<std::int64_t>(value / 10))
                     : fmt::format("{}.{}", value / 10, value % 10);
}

std::string cpu_percent(const PsRow& row, const PsClock& clock) {
  return permille(cpu_permille(row, clock));
}

std::string memory_percent(const PsRow& row, const PsClock& clock) {
  if (!clock.memory_bytes || *clock.memory_bytes == 0) return unread;
  const auto rss = static_cast<double>(row.process->rss_bytes.value_or(0));
  return permille(std::min<std::uint64_t>(
      static_cast<std::uint64_t>(rss * 1000 / static_cast<double>(*clock.memory_bytes)), 999));
}

std::string wall_time(std::int64_t unix_ns, const char* format) {
  const std::time_t seconds = unix_ns / ns_per_s;
  std::tm fields{};
  char buffer[64];
  ::localtime_r(&seconds, &fields);
  return {buffer, std::strftime(buffer, sizeof buffer, format, &fields)};
}

std::optional<std::int64_t> start_unix_ns(const PsRow& row, const PsClock& clock) {
  if (!clock.boot_unix_ns) return std::nullopt;
  // In whole seconds both, as /proc tells the one and ps counts the other.
  const std::int64_t second = ns_per_s;
  const std::int64_t start = static_cast<std::int64_t>(start_ns(row));
  return (*clock.boot_unix_ns / second + start / second) * second;
}

/// The time of day if it started on the guest's own day of the view, else the day, else the year.
/// Without the guest's wall clock, the time since its boot.
std::string start_text(const PsRow& row, const PsClock& clock) {
  const auto at = start_unix_ns(row, clock);
  if (!at || !clock.unix_ns) return "+" + elapsed_time(start_ns(row));
  if (wall_time(*at, "%Y") != wall_time(*clock.unix_ns, "%Y")) return wall_time(*at, "%Y");
  const bool today = wall_time(*at, "%F") == wall_time(*clock.unix_ns, "%F");
  return wall_time(*at, today ? "%H:%M" : "%b%d");
}

/// As `-o start`: by how long ago it was, not by the day.
std::string started_text(const PsRow& row, const PsClock& clock) {
  const auto at = start_unix_ns(row, clock);
  if (!at || !clock.unix_ns) return "+" + elapsed_time(start_ns(row));
  const bool recent = *clock.unix_ns - *at <= std::int64_t{24} * 3600 * 1'000'000'000;
  return wall_time(*at, recent ? "%T" : "  %b %d");
}

std::string long_start_text(const PsRow& row, const PsClock& clock) {
  const auto at = start_unix_ns(row, clock);
  return at ? wall_time(*at, "%a %b %e %T %Y") : "+" + elapsed_time(start_ns(row));
}

std::string elapsed_text(const PsRow& row, const PsClock& clock) {
  return elapsed_time(age_ns(row, clock));
}

std::string elapsed_seconds(const PsRow& row, const PsClock& clock) {
  return number(static_cast<std::int64_t>(age_ns(row, clock) / ns_per_s));
}

/// "0:07": minutes and seconds.
std::string bsd_time(const PsRow& row, const PsClock&) {
  const std::uint64_t seconds = cpu_ns(row) / ns_per_s;
  return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
}

// ---- states and ranks ----

/// STAT of BSD: < above others, N below, L with locked pages, s leads a session, l has threads, +
/// in the foreground.
std::string state_text(const PsRow& row, const PsClock&) {
  const Process& p = process_of(row);
  std::string text(1, task_state(row));
  const std::int32_t nice = task_nice(row);
  if (nice < 0) text += '<';
  if (nice > 0) text += 'N';
  if (p.locked_bytes.value_or(0) != 0) text += 'L';
  if (p.session == p.pid) text += 's';
  if (p.threads.value_or(1) > 1) text += 'l';
  if (p.tpgid > 0 && p.tpgid == p.pgrp) text += '+';
  return text;
}

/// SCHED_* of include/uapi/linux/sched.h.
std::string class_text(const PsRow& row, const PsClock&) {
  static constexpr std::string_view names[] = {"TS", "FF", "RR", "B", "ISO", "IDL", "DLN", "EXT"};
  const std::uint32_t policy = task_policy(row);
  return std::string(policy < std::size(names) ? names[policy] : "?");
}

bool is_real_time(const PsRow& row) {
  return task_policy(row) == policy_fifo || task_policy(row) == policy_rr;
}

std::string rt_text(const PsRow& row, const PsClock&) {
  return is_real_time(row) ? number(std::int64_t{task_rt_priority(row)}) : "-";
}

std::string nice_text(const PsRow& row, const PsClock&) {
  // Only for what the nice value means something to.
  const std::uint32_t policy = task_policy(row);
  const bool has = policy == 0 || policy == 3 || policy == 5;
  return has ? number(std::int64_t{task_nice(row)}) : "-";
}

std::string inner_pids(const Process& process) {
  return fmt::format("{}", fmt::join(process.ns_pids, ","));
}

std::string whole_command(const PsRow& row, const PsClock&) {
  return row.indent + (row.names_only ? shown(task_comm(row)) : command_text(*row.process));
}

std::string command_name(const PsRow& row, const PsClock&) {
  const bool defunct = row.process->validity == Validity::zombie;
  return row.indent + shown(task_comm(row)) + (defunct ? " <defunct>" : "");
}

#define TEXT(expression)                                \
  [](const PsRow& row, const PsClock&) -> std::string { \
    const Process& p = process_of(row);                 \
    static_cast<void>(p);                               \
    return expression;                                  \
  }
#define KEY(expression)                                  \
  [](const PsRow& row, const PsClock&) -> std::int64_t { \
    const Process& p = process_of(row);                  \
    static_cast<void>(p);                                \
    return static_cast<std::int64_t>(expression);        \
  }
constexpr Align left = Align::left, right = Align::right;

constexpr auto pid_text = TEXT(number(p.pid));
constexpr auto tid_text = TEXT(number(task_pid(row)));
constexpr auto euid_text = TEXT(number(task_euid(row)));
constexpr auto egid_text = TEXT(number(task_egid(row)));
constexpr auto ruid_text = TEXT(number(task_uid(row)));
constexpr auto rgid_text = TEXT(number(task_gid(row)));
constexpr auto session_text = TEXT(number(p.session));
constexpr auto group_text = TEXT(number(p.pgrp));
constexpr auto count_text = TEXT(number(p.threads));
constexpr auto tty_text = TEXT(terminal_name(p.tty_nr));
constexpr auto time_text = TEXT(cpu_time(cpu_ns(row)));
constexpr auto seconds_text = TEXT(number(static_cast<std::int64_t>(cpu_ns(row) / ns_per_s)));
constexpr auto rss_text = TEXT(kib(p.rss_bytes));
constexpr auto vsz_text = TEXT(kib(p.vsize_bytes));
constexpr auto flags_text = TEXT(fmt::format("{:o}", task_flags(row) >> 6 & 7));
constexpr auto letter_text = TEXT(std::string(1, task_state(row)));
constexpr auto pid_key = KEY(p.pid);
constexpr auto tid_key = KEY(task_pid(row));
constexpr auto euid_key = KEY(task_euid(row).value_or(0));
constexpr auto egid_key = KEY(task_egid(row).value_or(0));
constexpr auto ruid_key = KEY(task_uid(row).value_or(0));
constexpr auto rgid_key = KEY(task_gid(row).value_or(0));
constexpr auto session_key = KEY(p.session);
constexpr auto group_key = KEY(p.pgrp);
constexpr auto count_key = KEY(p.threads.value_or(0));
constexpr auto tty_key = KEY(p.tty_nr);
constexpr auto cpu_key = KEY(cpu_ns(row));
constexpr auto start_key = KEY(start_ns(row));
constexpr auto age_key = KEY(-static_cast<std::int64_t>(start_ns(row)));
constexpr auto rss_key = KEY(p.rss_bytes.value_or(0));
constexpr auto vsz_key = KEY(p.vsize_bytes.value_or(0));

// Names and headers are those of procps 4.0; what is behind `cmd` is our own.
constexpr std::array columns = {
    PsColumn{"pid", "PID", right, pid_text, pid_key},
    PsColumn{"tgid", "TGID", right, pid_text, pid_key},
    PsColumn{"tid", "TID", right, tid_text, tid_key},
    PsColumn{"lwp", "LWP", right, tid_text, tid_key},
    PsColumn{"spid", "SPID", right, tid_text, tid_key},
    PsColumn{"ppid", "PPID", right, TEXT(number(p.ppid)), KEY(p.ppid)},
    PsColumn{"uid", "UID", right, euid_text, euid_key},
    PsColumn{"euid", "EUID", right, euid_text, euid_key},
    PsColumn{"user", "USER", right, euid_text, euid_key},
    PsColumn{"uname", "USER", right, euid_text, euid_key},
    PsColumn{"euser", "EUSER", right, euid_text, euid_key},
    PsColumn{"ruid", "RUID", right, ruid_text, ruid_key},
    PsColumn{"ruser", "RUSER", right, ruid_text, ruid_key},
    PsColumn{"suid", "SUID", right, TEXT(number(p.suid)), KEY(p.suid.value_or(0))},
    PsColumn{"fsuid", "FUID", right, TEXT(number(p.fsuid)), KEY(p.fsuid.value_or(0))},
    PsColumn{"gid", "GID", right, egid_text, egid_key},
    PsColumn{"egid", "EGID", right, egid_text, egid_key},
    PsColumn{"group", "GROUP", right, egid_text, egid_key},
    PsColumn{"egroup", "EGROUP", right, egid_text, egid_key},
    PsColumn{"rgid", "RGID", right, rgid_text, rgid_key},
    PsColumn{"rgroup", "RGROUP", right, rgid_text, rgid_key},
    PsColumn{"sgid", "SGID", right, TEXT(number(p.sgid)), KEY(p.sgid.value_or(0))},
    PsColumn{"fsgid", "FGID", right, TEXT(number(p.fsgid)), KEY(p.fsgid.value_or(0))},
    PsColumn{"pgid", "PGID", right, group_text, group_key},
    PsColumn{"pgrp", "PGRP", right, group_text, group_key},
    PsColumn{"sid", "SID", right, session_text, session_key},
    PsColumn{"sess", "SESS", right, session_text, session_key},
    PsColumn{"session", "SESS", right, session_text, session_key},
    PsColumn{"tpgid", "TPGID", right, TEXT(number(p.tpgid)), KEY(p.tpgid)},
    PsColumn{"nlwp", "NLWP", right, count_text, count_key},
    PsColumn{"thcount", "THCNT", right, count_text, count_key},
    PsColumn{"c", "C", right, cpu_whole, share_key},
    PsColumn{"pcpu", "%CPU", right, cpu_percent, share_key},
    PsColumn{"%cpu", "%CPU", right, cpu_percent, share_key},
    PsColumn{"pmem", "%MEM", right, memory_percent, rss_key},
    PsColumn{"%mem", "%MEM", right, memory_percent, rss_key},
    PsColumn{"stat", "STAT", left, state_text, nullptr},
    PsColumn{"s", "S", left, letter_text, nullptr},
    PsColumn{"state", "S", left, letter_text, nullptr},
    PsColumn{"f", "F", right, flags_text, KEY(task_flags(row))},
    PsColumn{"flag", "F", right, flags_text, KEY(task_flags(row))},
    PsColumn{"flags", "F", right, flags_text, KEY(task_flags(row))},
    PsColumn{"stime", "STIME", left, start_text, start_key},
    PsColumn{"start_time", "START", left, start_text, start_key},
    PsColumn{"start", "STARTED", right, started_text, start_key},
    PsColumn{"lstart", "STARTED", right, long_start_text, start_key},
    PsColumn{"etime", "ELAPSED", right, elapsed_text, age_key},
    PsColumn{"etimes", "ELAPSED", right, elapsed_seconds, age_key},
    PsColumn{"tty", "TT", left, tty_text, tty_key},
    PsColumn{"tt", "TT", left, tty_text, tty_key},
    PsColumn{"tname", "TTY", left, tty_text, tty_key},
    PsColumn{"time", "TIME", right, time_text, cpu_key},
    PsColumn{"cputime", "TIME", right, time_text, cpu_key},
    PsColumn{"times", "TIME", right, seconds_text, cpu_key},
    PsColumn{"cputimes", "TIME", right, seconds_text, cpu_key},
    PsColumn{"bsdtime", "TIME", right, bsd_time, cpu_key},
    PsColumn{"rss", "RSS", right, rss_text, rss_key},
    PsColumn{"rssize", "RSS", right, rss_text, rss_key},
    PsColumn{"rsz", "RSZ", right, rss_text, rss_key},
    PsColumn{"vsz", "VSZ", right, vsz_text, vsz_key},
    PsColumn{"vsize", "VSZ", right, vsz_text, vsz_key},
    PsColumn{"sz", "SZ", right, TEXT(number(std::int64_t(p.vsize_bytes.value_or(0) / page_size))),
             vsz_key},
    PsColumn{"ni", "NI", right, nice_text, KEY(task_nice(row))},
    PsColumn{"nice", "NI", right, nice_text, KEY(task_nice(row))},
    PsColumn{"pri", "PRI", right, TEXT(number(39 - task_priority(row))),
             KEY(39 - task_priority(row))},
    PsColumn{"priority", "PRI", right, TEXT(number(task_priority(row))), KEY(task_priority(row))},
    PsColumn{"opri", "PRI", right, TEXT(number(60 + task_priority(row))), KEY(task_priority(row))},
    PsColumn{"rtprio", "RTPRIO", right, rt_text, KEY(task_rt_priority(row))},
    PsColumn{"cls", "CLS", right, class_text, KEY(task_policy(row))},
    PsColumn{"policy", "POL", right, class_text, KEY(task_policy(row))},
    PsColumn{"class", "CLS", right, class_text, KEY(task_policy(row))},
    PsColumn{"psr", "PSR", right, TEXT(number(task_cpu(row))), KEY(task_cpu(row))},
    PsColumn{"comm", "COMMAND", left, command_name, nullptr},
    PsColumn{"ucmd", "CMD", left, command_name, nullptr},
    PsColumn{"ucomm", "COMMAND", left, command_name, nullptr},
    PsColumn{"args", "COMMAND", left, whole_command, nullptr},
    PsColumn{"command", "COMMAND", left, whole_command, nullptr},
    PsColumn{"cmd", "CMD", left, whole_command, nullptr},
    PsColumn{"exe", "EXE", left, TEXT(shown(p.exe)), nullptr},
    PsColumn{"cwd", "CWD", left,
             TEXT(shown(row.thread != nullptr && row.thread->cwd.data() != nullptr ? row.thread->cwd
                                                                                   : p.cwd)),
             nullptr},
    PsColumn{"root", "ROOT", left, TEXT(shown(p.root)), nullptr},
    PsColumn{"pidns", "PIDNS", right, TEXT(number(p.pidns)), KEY(p.pidns.value_or(0))},
    PsColumn{"mntns", "MNTNS", right, TEXT(number(p.mntns)), KEY(p.mntns.value_or(0))},
    PsColumn{"netns", "NETNS", right, TEXT(number(p.netns)), KEY(p.netns.value_or(0))},
    PsColumn{"utsns", "UTSNS", right, TEXT(number(p.utsns)), KEY(p.utsns.value_or(0))},
    PsColumn{"nspid", "NSPID", left, TEXT(inner_pids(p)), nullptr},
    PsColumn{
        "cgroup", "CGROUP", left,
        TEXT(p.cgroups.empty() ? "-" : for_terminal(fmt::format("{}", fmt::join(p.cgroups, ",")))),
        nullptr},
    PsColumn{"validity", "VALIDITY", left, TEXT(std::string(to_string(p.validity))), nullptr},
    PsColumn{"task", "TASK", left, TEXT(fmt::format("{:#x}", p.task.raw())), KEY(p.task.raw())},
};
#undef TEXT
#undef KEY

}  // namespace

const PsColumn* find_ps_column(std::string_view name) {
  for (const PsColumn& column : columns) {
    if (column.name == name) return &column;
  }
  return nullptr;
}

std::vector<std::string_view> ps_column_names() {
  std::vector<std::string_view> names;
  for (const PsColumn& column : columns) names.push_back(column.name);
  return names;
}

}  // namespace vmsight
