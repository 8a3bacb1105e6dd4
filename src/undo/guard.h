// A small process that holds something in a VM for us - halted vCPUs, a monitor, a userfaultfd,
// patched code - and lets go of it whatever becomes of us.
//
//   vmsight --- request ---> vmsight-guard --- ptrace, cgroups, QMP, userfaultfd ---> QEMU
//           <--- answer ----
//
// It is a program of its own (src/guard), started by exec before the first change: in a session of
// its own, deaf to every signal but SIGKILL and SIGSTOP, without any descriptor of ours but those
// that it is given. It serves one request at a time to its end. A halt is a lease: when it runs
// out, the guard resumes the guest, and the answer to `resume` says so. When we end (also by
// SIGKILL), when the socket closes or when the VM ends, it undoes everything and exits.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/os.h"
#include "host/process.h"
#include "undo/guard_protocol.h"
#include "vmsight/result.h"

namespace vmsight {

struct GuardSetup {
  std::string service;  // a name of guard/service.h
  nlohmann::json config = nlohmann::json::object();
  std::vector<int> descriptors;  // go to the guard as guard_extra_fd and those behind it
};

class Guard {
 public:
  /// Starts own_program("vmsight-guard", "VMSIGHT_GUARD"): not_found, with a hint, if it is nowhere.
  static Result<std::unique_ptr<Guard>> start(const ProcessId& vm, const GuardSetup& setup);
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  /// Waits until it has undone everything, at most some seconds.
  ~Guard();

  /// The service's answer. os if the guard has ended, timeout if it does not answer (it goes on
  /// all the same, and ends when we close): after either, only destroying it makes sense. Not
  /// thread safe.
  Result<std::uint64_t> ask(GuardRequest request, std::uint64_t argument = 0);
  Result<std::uint64_t> ask(GuardRequest request, const nlohmann::json& payload);

  bool alive() const;
  pid_t pid() const { return pid_; }

 private:
  Guard() = default;
  Result<std::uint64_t> exchange(const GuardMessage& message, int descriptor);
  Result<GuardAnswer> receive();

  pid_t pid_ = -1;
  UniqueFd process_;  // its pidfd
  UniqueFd socket_;
};

}  // namespace vmsight
