#include "qemu/gdb_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

#include "base/wait.h"

namespace vmsight {
namespace {

/// QEMU 7.2 refuses more than half of its 4 KiB; newer ones take more, with no gain.
constexpr std::size_t most_memory = 64u << 10;
constexpr std::string_view stub = "the gdbstub";
constexpr std::string_view stub_hint = "another debugger may be connected to it";

}  // namespace

Result<GdbClient> GdbClient::negotiate(UniqueFd socket, Milliseconds patience) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK);
  GdbClient client(std::move(socket));
  VMSIGHT_TRY(const std::string supported, client.ask("qSupported:multiprocess+", patience));
  const auto packet_size = parse_packet_size(supported);
  if (!packet_size || *packet_size < 64) {
    return Error{.code = ErrorCode::unsupported, .message = "not a gdbstub: no PacketSize"};
  }
  // Two digits a byte, and what frames them.
  client.max_memory_ = std::min<std::uint64_t>(*packet_size / 2, most_memory) & ~7ULL;
  // A stub that knows no such mode takes the next packet for an acknowledgement as well.
  VMSIGHT_TRY(const std::string quiet, client.ask("QStartNoAckMode", patience));
  if (quiet == "OK") VMSIGHT_TRY_VOID(client.send("+", Clock::now() + patience));
  VMSIGHT_TRY_VOID(client.expect_ok("Qqemu.PhyMemMode:1", patience));
  return client;
}

Result<void> GdbClient::expect_ok(std::string question, Milliseconds patience) {
  VMSIGHT_TRY(const std::string answer, ask(question, patience));
  if (answer == "OK") return {};
  return Error{
      .code = ErrorCode::unsupported,
      .message = fmt::format("gdbstub {}: answered \"{}\"", question, answer.substr(0, 40))};
}

Result<std::vector<std::string>> GdbClient::ask_all(std::span<const std::string> questions,
                                                    Milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  std::string text;
  for (const std::string& question : questions) text += gdb_packet(question);
  VMSIGHT_TRY_VOID(send(text, deadline));
  std::vector<std::string> answers;
  while (answers.size() < questions.size()) {
    VMSIGHT_TRY(std::string answer, receive(deadline));
    if (!is_stop_reply(answer)) answers.push_back(std::move(answer));
  }
  return answers;
}

Result<std::string> GdbClient::ask(std::string question, Milliseconds patience) {
  VMSIGHT_TRY(auto answers, ask_all(std::span(&question, 1), patience));
  return std::move(answers.front());
}

std::string GdbClient::memory_question(GuestPhys from, std::size_t size) {
  return fmt::format("m{:x},{:x}", from.raw(), size);
}

Result<void> GdbClient::run(std::span<const std::string> orders, std::string_view how,
                            Milliseconds patience) {
  VMSIGHT_CHECK(!running_);
  // The last order is confirmed before the guest is let go: a stop that comes at once would
  // otherwise stand among the answers. All go out in one write all the same.
  const auto deadline = Clock::now() + patience;
  std::string text;
  for (const std::string& order : orders) text += gdb_packet(order);
  text += gdb_packet(how);
  running_ = true;
  VMSIGHT_TRY_VOID(send(text, deadline));
  for (const std::string& order : orders) {
    VMSIGHT_TRY(const std::string answer, receive(deadline));
    if (answer != "OK") {
      VMSIGHT_TRY(const GdbStop stop, interrupt(patience));
      static_cast<void>(stop);
      return Error{
          .code = ErrorCode::bad_data,
          .message = fmt::format("gdbstub {}: answered \"{}\"", order, answer.substr(0, 40))};
    }
  }
  return {};
}

Result<std::optional<GdbStop>> GdbClient::wait_stop(Milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (true) {
    VMSIGHT_TRY(const auto packet, receive_or_not(deadline));
    if (!packet) return std::optional<GdbStop>();
    const auto stop = parse_stop_reply(*packet);
    if (!stop) continue;  // the text of a monitor command, or an answer that nobody waits for
    running_ = false;
    return stop;
  }
}

Result<GdbStop> GdbClient::interrupt(Milliseconds patience) {
  VMSIGHT_CHECK(running_);
  VMSIGHT_TRY_VOID(send("\x03", Clock::now() + patience));
  VMSIGHT_TRY(const auto stop, wait_stop(patience));
  if (stop) return *stop;
  return Error{.code = ErrorCode::timeout,
               .message = "stop the guest: no answer from the gdbstub in time"};
}

Result<void> GdbClient::detach(Milliseconds patience) {
  if (running_) {
    VMSIGHT_TRY(const GdbStop stop, interrupt(patience));
    static_cast<void>(stop);
  }
  // QEMU keeps the mode for the next client, who may be a debugger.
  VMSIGHT_TRY_VOID(expect_ok("Qqemu.PhyMemMode:0", patience));
  // The only process of the stub is 1; without its number QEMU refuses (E22).
  return expect_ok("D;1", patience);
}

Result<void> GdbClient::send(std::string_view rest, Clock::time_point deadline) {
  while (!rest.empty()) {
    const ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      VMSIGHT_TRY_VOID(wait_for(socket_.get(), POLLOUT, deadline, stub, stub_hint));
    } else if (sent < 0 && errno != EINTR) {
      return os_error(errno, "write to the gdbstub");
    } else if (sent > 0) {
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  return {};
}

Result<std::string> GdbClient::receive(Clock::time_point deadline) {
  VMSIGHT_TRY(auto packet, receive_or_not(deadline));
  if (packet) return *std::move(packet);
  return Error{.code = ErrorCode::timeout,
               .message = "wait for the gdbstub: no answer in time",
               .hint = std::string(stub_hint)};
}

/// nullopt at the deadline.
Result<std::optional<std::string>> GdbClient::receive_or_not(Clock::time_point deadline) {
  while (true) {
    VMSIGHT_TRY(auto packet, packets_.next());
    if (packet) return packet;
    const auto ready = wait_for(socket_.get(), POLLIN, deadline, stub, stub_hint);
    if (!ready && ready.error().code == ErrorCode::timeout) return std::optional<std::string>();
    VMSIGHT_TRY_VOID(ready);
    char chunk[65536];
    const ssize_t got = ::recv(socket_.get(), chunk, sizeof chunk, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) return os_error(got < 0 ? errno : ECONNRESET, "read from the gdbstub");
    packets_.add(std::string_view(chunk, static_cast<std::size_t>(got)));
  }
}

}  // namespace vmsight
