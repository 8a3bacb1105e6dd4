// The host's end of a virtio-serial port that an agent in the guest listens on: a unix socket of
// QEMU's, which serves one client at a time.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "base/os.h"
#include "vmsight/vm.h"

namespace vmsight {

class AgentPort {
 public:
  using Milliseconds = std::chrono::milliseconds;
  static constexpr Milliseconds answer_time{10'000};  // so long an agent may say nothing

  /// Connects to the port of this name: the chardev of a virtserialport on QEMU's command line or,
  /// for one that was plugged in, as the monitor tells. unsupported, with a reason and a hint, if
  /// there is none or it cannot be connected to. Nothing is said yet: the guest does not notice more
  /// than that somebody is there.
  static Result<AgentPort> connect(const VmInfo& info, std::string_view name);

  /// Speaks on a connected stream socket. For tests.
  explicit AgentPort(UniqueFd socket);

  /// Takes what came and says how many bytes it has used up; the others come again, with more.
  /// `done` ends the exchange.
  struct Taken {
    std::size_t used = 0;
    bool done = false;
  };
  using Take = std::function<Result<Taken>(std::string_view)>;

  /// Sends all of `out` and meanwhile gives what comes to `take`, until that is done; both at the
  /// same time, since an agent that cannot send does not read. timeout after `patience` without a
  /// byte either way, or after `most_patience` times as long in all; os if the connection broke;
  /// bad_data if `take` wants more than `most` bytes at a time. What came and was not used up is kept
  /// for the next exchange.
  Result<void> exchange(std::string_view out, const Take& take, Milliseconds patience,
                        std::size_t most = 8u << 20);

  /// Why nobody answers: another client had the socket when we connected, else as `hint` says.
  Error silence(std::string_view whom, std::string hint) const;

 private:
  static constexpr std::size_t chunk = 256u << 10;
  static constexpr int most_patience = 20;  // a guest that trickles does not keep us for ever
  Result<void> receive(std::size_t most);
  Result<void> send(std::string_view& out);

  UniqueFd socket_;
  bool held_ = false;
  std::string received_;
};

/// The path of a unix socket by its inode, in the text of /proc/PID/net/unix; "" if it has none.
std::string unix_socket_path(std::string_view net_unix, std::uint64_t inode);

}  // namespace vmsight
