// What a running `vmsight watch` says of itself to `vmsight watch --status` in another terminal.
//
//   $RUNTIME/watch-PID.sock <-- connect -- `watch --status`
//                           -- a sealed memfd with a JSON document -->
//
// $RUNTIME is the directory of the journal of changes (undo/journal.h), which must be its owner's alone.
#pragma once

#include <functional>
#include <string>

#include "base/os.h"
#include "cli/verb.h"

namespace vmsight {

class WatchStatusSocket {
 public:
  /// Also removes sockets that a watch which was killed has left there. permission or os.
  static Result<WatchStatusSocket> open();
  WatchStatusSocket(WatchStatusSocket&& other) noexcept
      : path_(std::exchange(other.path_, {})), socket_(std::move(other.socket_)) {}
  WatchStatusSocket& operator=(WatchStatusSocket&&) = delete;
  ~WatchStatusSocket();

  /// Answers those of our own user who have asked since. Never waits for them.
  void serve(const std::function<std::string()>& document) const;

 private:
  WatchStatusSocket(std::string path, UniqueFd socket)
      : path_(std::move(path)), socket_(std::move(socket)) {}
  std::string path_;
  UniqueFd socket_;
};

/// Asks all that run as our user, and prints what they say; of one VM only, if one is named: not_found if
/// nobody watches it.
Result<void> show_watch_status(Session& session);

}  // namespace vmsight
