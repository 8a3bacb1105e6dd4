// What programs were allowed to do when they were seen last.
//
//   cred      what it grants never changes once a task has it: the kernel makes a new one instead
//   process   it becomes root by execve() of a program with set-uid, which counts self_exec_id up, or
//             because it had CAP_SETUID; not otherwise
#pragma once

#include <cstdint>
#include <map>

#include "vmsight/address.h"

namespace vmsight {

/// What a struct cred grants; members that this kernel does not have are 0.
struct CredContent {
  std::uint32_t uid = 0, gid = 0, suid = 0, sgid = 0, euid = 0, egid = 0, fsuid = 0, fsgid = 0;
  std::uint64_t inheritable = 0, permitted = 0, effective = 0, bounding = 0, ambient = 0;
  GuestVirt user_namespace;
  friend bool operator==(const CredContent&, const CredContent&) = default;
};

struct CredMemory {
  struct Program {
    std::uint64_t start = 0;  // with the PID: no other process before the next boot
    GuestVirt cred;
    CredContent content;
    std::uint64_t exec_id = 0;
  };
  std::map<std::int32_t, Program> programs;  // by PID
};

}  // namespace vmsight
