// The other end of an AgentPort: a thread that plays an agent in a guest.
#pragma once

#include <sys/socket.h>
#include <array>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "agent/agent_port.h"
#include "agent/program/session.h"

namespace vmsight::test {

class AgentPeer {
 public:
  using Play = std::function<void(int socket)>;

  explicit AgentPeer(Play play) {
    std::array<int, 2> ends{};
    VMSIGHT_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    ours_ = UniqueFd(ends[0]);
    thread_ =
        std::thread([play = std::move(play), theirs = UniqueFd(ends[1])] { play(theirs.get()); });
  }
  ~AgentPeer() {
    ours_.reset();
    thread_.join();
  }
  /// Once. The peer sees the end when the port goes.
  AgentPort port() { return AgentPort(std::move(ours_)); }

 private:
  UniqueFd ours_;
  std::thread thread_;
};

inline void say(int socket, std::string_view text) {
  static_cast<void>(::send(socket, text.data(), text.size(), MSG_NOSIGNAL));
}

inline std::string hear(int socket) {
  std::string text(65536, '\0');
  const ssize_t got = ::recv(socket, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

/// The byte that PatternMemory has at this address.
inline std::byte pattern(std::uint64_t address) {
  return static_cast<std::byte>(address * 31 + (address >> 12));
}

/// RAM from 0 to 1 MiB with a hole from 0xa0000 on, and 4 GiB to 4 GiB + 4 MiB.
class PatternMemory final : public agent::Memory {
 public:
  static constexpr std::array<agent::Range, 2> there{{{0, 0xa0000}, {1ull << 32, 4u << 20}}};

  int open() override { return error; }
  void check() override { ++checks; }
  std::size_t ranges(std::span<agent::Range> into) override {
    std::copy(there.begin(), there.end(), into.begin());
    return there.size();
  }
  std::size_t read(std::uint64_t start, std::span<std::byte> into) override {
    for (const agent::Range& range : there) {
      if (start < range.start || start - range.start >= range.size) continue;
      const std::size_t size =
          std::min<std::uint64_t>(into.size(), range.start + range.size - start);
      for (std::size_t i = 0; i < size; ++i) into[i] = pattern(start + i);
      return size;
    }
    return 0;
  }

  int error = 0, checks = 0;
};

/// Our real agent, on a socket instead of a port.
inline void play_vmsight_agent(int socket) {
  PatternMemory memory;
  const auto session = std::make_unique<agent::Session>(memory);
  while (true) {
    const ssize_t got = ::recv(socket, session->room().data(), session->room().size(), 0);
    if (got <= 0) return;
    session->received(static_cast<std::size_t>(got));
    while (session->step()) {
      const auto bytes = session->to_send();
      say(socket, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      session->sent(bytes.size());
    }
  }
}

}  // namespace vmsight::test
