#include "render/ps_columns.h"

#include <array>
#include <ctime>

#include "base/units.h"
#include "render/format.h"
#include "render/ps.h"

namespace vmsight {
namespace {

constexpr const char* unread = "?";

template <typename T>
std::string number(const std::optional<T>& value) {
  return value ? fmt::format_int(*value).str() : std::string(unread);
}
std::string number(std::int64_t value) { return fmt::format_int(value).str(); }
std::string kib(const std::optional<std::uint64_t>& bytes) {
  return bytes ? fmt::format_int(*bytes / 1024).str() : "-";
}
std::string shown(std::string_view value) {
  return value.data() == nullptr ? "-" : std::string(value);
}

std::uint64_t cpu_ns(const Process& process) { return process.utime_ns + process.stime_ns; }

std::string cpu_percent(const PsRow& row, const PsClock& clock) {
  if (row.thread != nullptr) return "-";
  const std::uint64_t start = row.process->start_time_ns;
  if (clock.uptime_ns <= start) return "0";
  return number(static_cast<std::int64_t>(cpu_ns(*row.process) * 100 / (clock.uptime_ns - start)));
}

std::string wall_time(std::int64_t unix_ns, const char* format) {
  const std::time_t seconds = unix_ns / ns_per_s;
  std::tm fields{};
  char buffer[64];
  ::localtime_r(&seconds, &fields);
  return {buffer, std::strftime(buffer, sizeof buffer, format, &fields)};
}

/// As `ps -ef`: the time of day if it started today, else the day, else the year. Without the
/// guest's wall clock, the time since its boot.
std::string start_text(const PsRow& row, const PsClock& clock) {
  const auto start = static_cast<std::int64_t>(row.process->start_time_ns);
  if (!clock.boot_unix_ns) return "+" + elapsed_time(row.process->start_time_ns);
  const std::int64_t at = *clock.boot_unix_ns + start;
  if (wall_time(at, "%F") == wall_time(clock.now_unix_ns, "%F")) return wall_time(at, "%H:%M");
  const bool this_year = wall_time(at, "%Y") == wall_time(clock.now_unix_ns, "%Y");
  return wall_time(at, this_year ? "%b%d" : "%Y");
}

std::string long_start_text(const PsRow& row, const PsClock& clock) {
  if (!clock.boot_unix_ns) return start_text(row, clock);
  const auto start = static_cast<std::int64_t>(row.process->start_time_ns);
  return wall_time(*clock.boot_unix_ns + start, "%F %T");
}

std::string elapsed_text(const PsRow& row, const PsClock& clock) {
  const std::uint64_t start = row.process->start_time_ns;
  return elapsed_time(clock.uptime_ns > start ? clock.uptime_ns - start : 0);
}

std::string inner_pids(const Process& process) {
  return fmt::format("{}", fmt::join(process.ns_pids, ","));
}

const Process& process_of(const PsRow& row) { return *row.process; }
std::int32_t task_pid(const PsRow& row) {
  return row.thread != nullptr ? row.thread->pid : row.process->pid;
}
std::string_view task_comm(const PsRow& row) {
  return row.thread != nullptr ? row.thread->comm : row.process->comm;
}
char task_state(const PsRow& row) {
  return row.thread != nullptr ? row.thread->state : row.process->state;
}
std::int32_t task_cpu(const PsRow& row) {
  return row.thread != nullptr ? row.thread->cpu : row.process->cpu;
}

#define TEXT(expression)                                \
  [](const PsRow& row, const PsClock&) -> std::string { \
    const Process& p = process_of(row);                 \
    static_cast<void>(p);                               \
    return expression;                                  \
  }
#define KEY(expression)                           \
  [](const PsRow& row) -> std::int64_t {          \
    const Process& p = process_of(row);           \
    static_cast<void>(p);                         \
    return static_cast<std::int64_t>(expression); \
  }
constexpr Align left = Align::left, right = Align::right;

constexpr std::array columns = {
    PsColumn{"pid", "PID", right, TEXT(number(p.pid)), KEY(p.pid)},
    PsColumn{"tid", "TID", right, TEXT(number(task_pid(row))), KEY(task_pid(row))},
    PsColumn{"ppid", "PPID", right, TEXT(number(p.ppid)), KEY(p.ppid)},
    PsColumn{"uid", "UID", right, TEXT(number(p.uid)), KEY(p.uid.value_or(0))},
    PsColumn{"euid", "EUID", right, TEXT(number(p.euid)), KEY(p.euid.value_or(0))},
    PsColumn{"gid", "GID", right, TEXT(number(p.gid)), KEY(p.gid.value_or(0))},
    PsColumn{"egid", "EGID", right, TEXT(number(p.egid)), KEY(p.egid.value_or(0))},
    PsColumn{"pgid", "PGID", right, TEXT(number(p.pgrp)), KEY(p.pgrp)},
    PsColumn{"sid", "SID", right, TEXT(number(p.session)), KEY(p.session)},
    PsColumn{"nlwp", "NLWP", right, TEXT(number(p.threads)), KEY(p.threads.value_or(0))},
    PsColumn{"c", "C", right, cpu_percent, KEY(cpu_ns(p))},
    PsColumn{"stat", "S", left, TEXT(std::string(1, task_state(row))), nullptr},
    PsColumn{"stime", "STIME", left, start_text, KEY(p.start_time_ns)},
    PsColumn{"lstart", "STARTED", left, long_start_text, KEY(p.start_time_ns)},
    PsColumn{"etime", "ELAPSED", right, elapsed_text,
             KEY(-static_cast<std::int64_t>(p.start_time_ns))},
    PsColumn{"tty", "TTY", left, TEXT(terminal_name(p.tty_nr)), KEY(p.tty_nr)},
    PsColumn{"time", "TIME", right, TEXT(row.thread ? "-" : cpu_time(cpu_ns(p))), KEY(cpu_ns(p))},
    PsColumn{"rss", "RSS", right, TEXT(kib(p.rss_bytes)), KEY(p.rss_bytes.value_or(0))},
    PsColumn{"vsz", "VSZ", right, TEXT(kib(p.vsize_bytes)), KEY(p.vsize_bytes.value_or(0))},
    PsColumn{"ni", "NI", right, TEXT(number(p.nice)), KEY(p.nice)},
    PsColumn{"pri", "PRI", right, TEXT(number(p.priority)), KEY(p.priority)},
    PsColumn{"psr", "PSR", right, TEXT(number(task_cpu(row))), KEY(task_cpu(row))},
    PsColumn{"comm", "COMMAND", left, TEXT(row.indent + shown(task_comm(row))), nullptr},
    PsColumn{"cmd", "CMD", left, TEXT(row.indent + command_text(p)), nullptr},
    PsColumn{"exe", "EXE", left, TEXT(shown(p.exe)), nullptr},
    PsColumn{"cwd", "CWD", left, TEXT(shown(p.cwd)), nullptr},
    PsColumn{"root", "ROOT", left, TEXT(shown(p.root)), nullptr},
    PsColumn{"pidns", "PIDNS", right, TEXT(number(p.pidns)), KEY(p.pidns.value_or(0))},
    PsColumn{"mntns", "MNTNS", right, TEXT(number(p.mntns)), KEY(p.mntns.value_or(0))},
    PsColumn{"netns", "NETNS", right, TEXT(number(p.netns)), KEY(p.netns.value_or(0))},
    PsColumn{"utsns", "UTSNS", right, TEXT(number(p.utsns)), KEY(p.utsns.value_or(0))},
    PsColumn{"nspid", "NSPID", left, TEXT(inner_pids(p)), nullptr},
    PsColumn{"validity", "VALIDITY", left, TEXT(std::string(to_string(p.validity))), nullptr},
    PsColumn{"task", "TASK", left, TEXT(fmt::format("{:#x}", p.task.raw())), KEY(p.task.raw())},
};
#undef TEXT
#undef KEY

/// Other names that people type.
constexpr std::pair<std::string_view, std::string_view> aliases[] = {
    {"args", "cmd"},    {"command", "cmd"}, {"user", "uid"},     {"ruid", "uid"},
    {"lwp", "tid"},     {"spid", "tid"},    {"s", "stat"},       {"state", "stat"},
    {"start", "stime"}, {"tt", "tty"},      {"cputime", "time"}, {"thcount", "nlwp"},
    {"sess", "sid"},    {"session", "sid"}, {"pgrp", "pgid"},    {"nice", "ni"},
    {"pcpu", "c"},      {"%cpu", "c"},      {"rssize", "rss"},   {"rsz", "rss"},
    {"vsize", "vsz"},   {"ucmd", "comm"},   {"ucomm", "comm"},   {"start_time", "stime"},
};

}  // namespace

const PsColumn* find_ps_column(std::string_view name) {
  for (const auto& [alias, real] : aliases) {
    if (alias == name) name = real;
  }
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
