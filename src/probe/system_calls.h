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
  std::string name;                    // "openat"; "fstat" of a wrapper of newfstat
  std::optional<std::int64_t> number;  // of native programs
  std::string_view abi;                // of whose programs: "i386", "x32"; "" of 64-bit ones
  /// In struct pt_regs, of a function that stands for all numbers which the kernel does not know.
  std::optional<std::int32_t> number_offset;
  std::vector<Argument> arguments;
};

/// Patterns of all functions that are system calls, those of native programs first.
std::vector<std::string> system_call_patterns(const Kernel& kernel);

/// nullopt if the function is no such wrapper, or struct pt_regs is not known. Without the kernel's
/// description (CONFIG_FTRACE_SYSCALLS) the prototype of __do_sys_NAME is taken, else six numbers.
std::optional<SystemCall> read_system_call(Kernel& kernel, Reader& reader,
                                           std::string_view function);

}  // namespace vmsight
