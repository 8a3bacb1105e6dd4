// Alarms to systemd's journal, in its native protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
#include <fmt/format.h>
#include <cerrno>

#include "base/sealed_file.h"
#include "detect/datagram_socket.h"
#include "detect/losses.h"
#include "detect/sink.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

/// "KEY=VALUE\n", or of a value of several lines "KEY\n", its length as 64 bits in little endian, VALUE, "\n".
void append_field(std::string& entry, std::string_view key, std::string_view value) {
  entry += key;
  if (value.find('\n') == value.npos) {
    entry += '=';
  } else {
    entry += '\n';
    for (unsigned byte = 0; byte < 8; ++byte)
      entry += static_cast<char>(std::uint64_t{value.size()} >> (8 * byte) & 0xff);
  }
  entry += value;
  entry += '\n';
}

class JournaldSink final : public AlarmSink {
 public:
  explicit JournaldSink(JournaldOptions options)
      : options_(std::move(options)), socket_(options_.path) {}

  Result<void> connect() { return socket_.connect(); }

  Result<void> deliver(const Alarm& alarm) override {
    if (auto sent = send(entry_of(alarm)); !sent) return losses_.lose(std::move(sent).error());
    losses_.delivered();
    return {};
  }
  Result<void> flush() override { return {}; }
  std::uint64_t lost() const override { return losses_.count(); }

 private:
  /// What is too large for a datagram comes as a file that nobody can change.
  Result<void> send(const std::string& entry) {
    auto sent = socket_.send(entry);
    const bool is_large =
        !sent && (sent.error().os_errno == EMSGSIZE || sent.error().os_errno == ENOBUFS);
    if (!is_large) return sent;
    VMSIGHT_TRY(const UniqueFd file, sealed_file("vmsight-alarm", entry));
    return socket_.send("", file.get());
  }

  std::string entry_of(const Alarm& alarm) const {
    std::string entry;
    append_field(entry, "MESSAGE", alarm_text(alarm));
    append_field(entry, "PRIORITY", fmt::format("{}", static_cast<unsigned>(alarm.priority)));
    append_field(entry, "SYSLOG_IDENTIFIER", options_.identifier);
    append_field(entry, "VMSIGHT_RULE", one_line(alarm.rule));
    append_field(entry, "VMSIGHT_VM", escape_bytes(alarm.vm));
    for (const std::string& tag : alarm.tags) append_field(entry, "VMSIGHT_TAGS", one_line(tag));
    append_field(entry, "VMSIGHT_COUNT", fmt::format("{}", alarm.count));
    append_field(entry, "VMSIGHT_ALARM", format_alarm(alarm, AlarmFormat::json, options_.hostname));
    return entry;
  }

  JournaldOptions options_;
  DatagramSocket socket_;
  Losses losses_;
};

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_journald_sink(JournaldOptions options) {
  auto sink = std::make_unique<JournaldSink>(std::move(options));
  VMSIGHT_TRY_VOID(sink->connect());
  return std::unique_ptr<AlarmSink>(std::move(sink));
}

}  // namespace vmsight::detect
