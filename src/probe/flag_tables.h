// The tables behind flag_names().
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "probe/flags.h"

namespace vmsight {

struct FlagName {
  std::string_view name;
  std::uint64_t value;
};

/// Constants are signed in C headers; the kernel's words are not.
constexpr FlagName flag_name(std::string_view name, std::int64_t constant) {
  return {name, static_cast<std::uint64_t>(constant)};
}

inline constexpr std::uint64_t only_values = ~0ULL;

/// A number is one value of those under `mask`, and bits besides.
struct FlagTable {
  FlagKind kind;
  std::uint64_t mask;  // of the values; 0: only bits
  std::span<const FlagName> values;
  std::span<const FlagName> bits;  // those of several bits come before those of one
  std::string_view zero = "0";     // what no bit at all is called
};

std::span<const FlagTable> file_flags();     // flag_tables_files.cpp: files and memory
std::span<const FlagTable> process_flags();  // flag_tables_processes.cpp: processes and sockets

}  // namespace vmsight
