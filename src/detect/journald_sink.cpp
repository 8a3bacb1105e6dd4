// Alarms to systemd's journal, in its native protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include "base/os.h"
#include "base/sealed_file.h"
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
  explicit JournaldSink(JournaldOptions options) : options_(std::move(options)) {}

  Result<void> open() {
    if (options_.path.size() >= sizeof address_.sun_path) {
      return Error{.code = ErrorCode::usage, .message = action() + ": the path is too long"};
    }
    std::memcpy(address_.sun_path, options_.path.data(), options_.path.size());
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_) return os_error(errno, action());
    // An empty datagram is no entry: it only tells whether somebody is there.
    if (!send("", -1)) return os_error(errno, action());
    return {};
  }

  /// A journald that was started again has another socket at the same path: each entry goes to the path.
  Result<void> deliver(const Alarm& alarm) override {
    const std::string entry = entry_of(alarm);
    bool sent = send(entry, -1);
    if (!sent && (errno == EMSGSIZE || errno == ENOBUFS)) {
      auto file = sealed_file("vmsight-alarm", entry);  // as the protocol has what is too large
      if (!file) return losses_.lose(std::move(file).error());
      sent = send("", file->get());
    }
    if (!sent) return losses_.lose(os_error(errno, action()));
    losses_.delivered();
    return {};
  }
  Result<void> flush() override { return {}; }
  std::uint64_t lost() const override { return losses_.count(); }

 private:
  std::string action() const { return fmt::format("send to {}", escape_bytes(options_.path)); }

  bool send(std::string_view bytes, int descriptor) {
    iovec data{const_cast<char*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_name = &address_;
    message.msg_namelen =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + options_.path.size() + 1);
    message.msg_iov = &data;
    message.msg_iovlen = bytes.empty() ? 0 : 1;
    if (descriptor >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
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
  sockaddr_un address_{.sun_family = AF_UNIX, .sun_path = {}};
  UniqueFd socket_;
  Losses losses_;
};

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_journald_sink(JournaldOptions options) {
  auto sink = std::make_unique<JournaldSink>(std::move(options));
  VMSIGHT_TRY_VOID(sink->open());
  return std::unique_ptr<AlarmSink>(std::move(sink));
}

}  // namespace vmsight::detect
