// A small process of ours that holds something inside a QEMU process for us, and survives us long
// enough to let go of it.
//
//   vmsight  --- request --->  attendant  --- ptrace, userfaultfd --->  QEMU
//            <--- answer ----
//
// Forked, in a session of its own, deaf to every signal but SIGKILL, without any descriptor of ours
// but its socket and those it asks for. It serves one request at a time to its end, whatever
// becomes of us; when we end (also by SIGKILL), when the socket closes or when the VM ends, it
// calls end() and exits.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/os.h"
#include "vmsight/result.h"

namespace vmsight {

/// What an attendant does; runs in its process.
class Service {
 public:
  virtual ~Service() = default;
  /// An error of code timeout ends the attendant after it was told: it left something half done
  /// that only the end of the process undoes.
  virtual Result<std::uint64_t> serve(std::uint32_t request) = 0;
  /// A descriptor whose events it wants to be told of; -1 for none.
  virtual int watched() const { return -1; }
  /// An event of it. An error ends the attendant.
  virtual Result<void> on_event() { return {}; }
  /// Undoes everything.
  virtual void end() = 0;
};

class Attendant {
 public:
  /// `make` runs in the new process; `pid` is the VM's process.
  static Result<std::unique_ptr<Attendant>> start(
      pid_t pid, const std::function<std::unique_ptr<Service>()>& make);
  Attendant(const Attendant&) = delete;
  Attendant& operator=(const Attendant&) = delete;
  /// Waits until it has undone everything, at most some seconds.
  ~Attendant();

  /// The service's answer. os if the attendant has ended, timeout if it does not answer (it goes on
  /// all the same, and ends when we close): after either, only destroying it makes sense.
  Result<std::uint64_t> ask(std::uint32_t request);

  /// Whether the process is there.
  bool alive() const;
  pid_t pid() const { return pid_; }

 private:
  Attendant() = default;
  pid_t pid_ = -1;
  UniqueFd process_;  // its pidfd
  UniqueFd socket_;
};

}  // namespace vmsight
