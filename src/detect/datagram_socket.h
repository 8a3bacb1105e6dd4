// Datagrams to a daemon that listens at a path: syslog, systemd's journal.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight::detect {

class DatagramSocket {
 public:
  explicit DatagramSocket(std::string path) : path_(std::move(path)) {}

  /// usage for a path that is too long; os if nobody listens there.
  Result<void> connect();
  /// One datagram, with a copy of `descriptor` unless that is -1. A daemon that was started again, and has
  /// another socket at the path, gets it, too. Does not wait. os, with the errno (EAGAIN, EMSGSIZE ...).
  Result<void> send(std::string_view bytes, int descriptor = -1);

 private:
  bool send_once(std::string_view bytes, int descriptor) const;
  std::string action() const;

  std::string path_;
  UniqueFd socket_;
};

}  // namespace vmsight::detect
