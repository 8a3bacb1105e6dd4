// The kernel's own description of its system calls (struct syscall_metadata), and what stands for
// one: a wrapper function that gets the caller's registers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/reader.h"

namespace vmsight {

struct SystemCall {
  struct Argument {
    std::string type, name;   // "const char *", "filename"
    std::int32_t offset = 0;  // in struct pt_regs
  };
  std::string name;                    // "openat"; "fstat" of __x64_sys_newfstat
  std::optional<std::int64_t> number;  // of 64-bit programs
  std::vector<Argument> arguments;
};

/// "openat" of "__x64_sys_openat"; nullopt for other functions. `is_32bit` for those of 32-bit
/// programs.
std::optional<std::string_view> system_call_of(std::string_view function, bool* is_32bit = nullptr);

/// nullopt if the function is no such wrapper, or struct pt_regs is not known. Without the kernel's
/// description (CONFIG_FTRACE_SYSCALLS) the prototype of __do_sys_NAME is taken, else six numbers.
std::optional<SystemCall> read_system_call(Kernel& kernel, Reader& reader,
                                           std::string_view function);

}  // namespace vmsight
