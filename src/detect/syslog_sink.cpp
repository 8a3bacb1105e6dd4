// Alarms as datagrams to syslog or journald.
#include <fmt/format.h>
#include <unistd.h>
#include <array>
#include <ctime>

#include "base/units.h"
#include "detect/datagram_socket.h"
#include "detect/losses.h"
#include "detect/sink.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

constexpr std::size_t longest_text = 32 * 1024;  // what daemons take at most is about that

std::string local_header(const SyslogOptions& options, unsigned priority, std::uint64_t time_ns) {
  constexpr std::array<std::string_view, 12> months = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto seconds = static_cast<std::time_t>(time_ns / ns_per_s);
  std::tm tm{};
  ::localtime_r(&seconds, &tm);
  return fmt::format("<{}>{} {:2} {:02}:{:02}:{:02} {}[{}]: ", priority,
                     months.at(static_cast<std::size_t>(tm.tm_mon) % 12), tm.tm_mday, tm.tm_hour,
                     tm.tm_min, tm.tm_sec, options.identifier, ::getpid());
}

/// RFC 5424: six digits of a second at most, no structured data.
std::string rfc5424_header(const SyslogOptions& options, unsigned priority, std::uint64_t time_ns) {
  constexpr std::size_t to_microseconds = sizeof "2026-11-29T20:14:05.000000" - 1;
  const std::string host = options.hostname.empty() ? "-" : escape_bytes(options.hostname);
  return fmt::format("<{}>1 {}Z {} {} {} alarm - ", priority,
                     rfc3339(time_ns).substr(0, to_microseconds), host, options.identifier,
                     ::getpid());
}

class SyslogSink final : public AlarmSink {
 public:
  explicit SyslogSink(SyslogOptions options)
      : options_(std::move(options)), socket_(options_.path) {}

  Result<void> connect() { return socket_.connect(); }

  Result<void> deliver(const Alarm& alarm) override {
    if (auto sent = socket_.send(message_of(alarm)); !sent)
      return losses_.lose(std::move(sent).error());
    losses_.delivered();
    return {};
  }
  Result<void> flush() override { return {}; }
  std::uint64_t lost() const override { return losses_.count(); }

 private:
  std::string message_of(const Alarm& alarm) const {
    const unsigned priority =
        static_cast<unsigned>(options_.facility) * 8 + static_cast<unsigned>(alarm.priority);
    const bool is_local = options_.header == SyslogOptions::Header::local;
    std::string header = is_local ? local_header(options_, priority, alarm.time_ns)
                                  : rfc5424_header(options_, priority, alarm.time_ns);
    if (options_.format != AlarmFormat::text) {
      return header + format_alarm(alarm, options_.format, options_.hostname);
    }
    return header + alarm_text(alarm).substr(0, longest_text);
  }

  SyslogOptions options_;
  DatagramSocket socket_;
  Losses losses_;
};

bool is_identifier_word(std::string_view word) {
  return !word.empty() && word.size() <= 48 && escape_bytes(word) == word &&
         word.find_first_of(" []:") == word.npos;
}

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_syslog_sink(SyslogOptions options) {
  if (options.facility < 0 || options.facility > 23 || !is_identifier_word(options.identifier)) {
    return Error{.code = ErrorCode::usage,
                 .message =
                     "syslog: a facility from 0 to 23 and an identifier of one word are "
                     "needed"};
  }
  auto sink = std::make_unique<SyslogSink>(std::move(options));
  VMSIGHT_TRY_VOID(sink->connect());
  return std::unique_ptr<AlarmSink>(std::move(sink));
}

}  // namespace vmsight::detect
