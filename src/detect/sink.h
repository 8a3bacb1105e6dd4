// Where alarms go.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "detect/alarm.h"
#include "vmsight/result.h"

namespace vmsight::detect {

enum class AlarmFormat : std::uint8_t {
  text,  // TIME: PRIORITY RULE: OUTPUT (vm=VM)
  json,  // an object with Falco's names
  ocsf,  // an OCSF Detection Finding
};
/// One line without its end. `hostname` is this host's.
std::string format_alarm(const Alarm& alarm, AlarmFormat format, const std::string& hostname);
/// The text without its time: "Warning RULE: OUTPUT (vm=VM)".
std::string alarm_text(const Alarm& alarm);
/// The objects behind the lines; all strings are UTF-8.
nlohmann::json alarm_json(const Alarm& alarm, const std::string& hostname);
nlohmann::json alarm_ocsf(const Alarm& alarm, const std::string& hostname);
/// "2026-11-29T20:14:05.000000007Z".
std::string rfc3339(std::uint64_t time_ns);
std::string host_name();

/// Takes alarms. None of them makes its caller wait for longer than a write to a file takes. Not
/// safe for threads.
class AlarmSink {
 public:
  virtual ~AlarmSink() = default;
  /// An alarm that cannot be delivered is lost. The error of the first one is returned, by this or
  /// a later call, and not again until one was delivered.
  virtual Result<void> deliver(const Alarm& alarm) = 0;
  /// Waits, for a bounded time, until what was taken is delivered.
  virtual Result<void> flush() = 0;
  /// Opens its file anew, which somebody has moved away; other sinks do nothing.
  virtual Result<void> reopen() { return {}; }
  virtual std::uint64_t lost() const = 0;
};

/// Appends lines to the file, which it creates for its owner alone. A pipe that nobody reads, or is
/// full, loses alarms. SIGPIPE has to be ignored.
Result<std::unique_ptr<AlarmSink>> open_file_sink(std::string path, AlarmFormat format,
                                                  std::string hostname = host_name());
/// Lines to a descriptor that the caller keeps open, such as standard output.
std::unique_ptr<AlarmSink> make_descriptor_sink(int fd, AlarmFormat format,
                                                std::string hostname = host_name());

struct SyslogOptions {
  /// local: what syslog(3) writes, and journald and rsyslog read at /dev/log.
  enum class Header : std::uint8_t { local, rfc5424 };
  std::string path = "/dev/log";  // a datagram socket
  Header header = Header::local;
  AlarmFormat format = AlarmFormat::text;  // of the message; a text has no time of its own there
  int facility = 3;                        // daemon
  std::string identifier = "vmsight";
  std::string hostname = host_name();
};
/// A daemon that restarts is connected to again.
Result<std::unique_ptr<AlarmSink>> open_syslog_sink(SyslogOptions options);

struct CommandOptions {
  std::vector<std::string> arguments;  // of the program, its name first, looked for in PATH
  std::string shell_line;              // or what /bin/sh is to run
  AlarmFormat format = AlarmFormat::json;
  std::chrono::milliseconds limit{10'000};  // then it is killed, with its process group
  unsigned at_once = 8;
  std::size_t waiting = 64;  // alarms for which there is no process yet
  std::string hostname = host_name();
};
/// Starts a program for each alarm, with the alarm on its standard input and its output on our
/// standard error. An alarm of which the program fails is lost.
Result<std::unique_ptr<AlarmSink>> open_command_sink(CommandOptions options);

/// Runs what each alarm says itself (Alarm::commands), some of them at once, as open_command_sink() does.
Result<std::unique_ptr<AlarmSink>> open_requested_commands_sink(
    const std::string& hostname = host_name());

struct JournaldOptions {
  std::string path = "/run/systemd/journal/socket";  // a datagram socket
  std::string identifier = "vmsight";
  std::string hostname = host_name();
};
/// The journal's own protocol: MESSAGE is the text, PRIORITY that of the rule, VMSIGHT_RULE, VMSIGHT_VM,
/// VMSIGHT_TAGS, VMSIGHT_COUNT and VMSIGHT_ALARM, which is the whole alarm as JSON. What is too large for
/// a datagram goes as a memfd.
Result<std::unique_ptr<AlarmSink>> open_journald_sink(JournaldOptions options);

using OpenSinks = std::function<Result<std::vector<std::unique_ptr<AlarmSink>>>()>;
/// Sinks in a process of their own, which is forked here, calls `open` (whose error this returns) and
/// delivers each alarm to all of them. To be called while there are no other threads, and before a guest is
/// attached: the process has nothing of its memory then. It is deaf to signals that end programs in
/// order; when we end, however, it delivers what it got, ends what it runs, and ends.
Result<std::unique_ptr<AlarmSink>> open_process_sink(const OpenSinks& open);

struct AlertmanagerOptions {
  std::string address = "127.0.0.1:9093";  // HOST:PORT, [IPV6]:PORT
  std::string path = "/api/v2/alerts";
  std::chrono::milliseconds limit{2'000};  // for a request and its answer
  std::size_t waiting = 256;
  std::string hostname = host_name();
};
/// Posts alarms to Prometheus' Alertmanager, without TLS. The name of the host is looked up once,
/// here. The labels of an alert are alertname, severity, vm, instance and source: alarms of one rule
/// and VM are one alert to Alertmanager, which ends it when no more of them come.
Result<std::unique_ptr<AlarmSink>> open_alertmanager_sink(AlertmanagerOptions options);

}  // namespace vmsight::detect
