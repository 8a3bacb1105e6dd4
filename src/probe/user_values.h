// What arguments of system calls point to in the memory of the program: buffers, strings, addresses.
// Pure, apart from what an engine fetched.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "probe/engine.h"

namespace vmsight {

enum class UserValue : std::uint8_t {
  none,
  given,        // a buffer that the call reads: as many bytes as another argument says
  filled,       // a buffer that the call writes: as many bytes as its result says
  filled_line,  // the same, ended by a NUL that the result counts
  strings,      // argv: pointers to texts, ended by a null pointer
  socket_address,
  time,       // struct timespec
  task_name,  // of prctl(): a text of at most 16 bytes, which the call reads or writes
};

struct UserRule {
  std::string_view call;
  std::uint8_t argument = 0;
  UserValue kind = UserValue::none;
  std::uint8_t length = 0;  // of `given`: the argument that says it
};
/// nullptr for arguments that are numbers, plain texts, or not decoded.
const UserRule* user_rule(std::string_view system_call, std::size_t argument);

constexpr bool is_filled(UserValue kind) {
  return kind == UserValue::filled || kind == UserValue::filled_line;
}

/// What to fetch for a value, where `pointer` fetches the pointer to it; from the memory at the
/// return, if is_filled().
std::vector<ProbeFetch> user_fetches(UserValue kind, const ProbeFetch& pointer);

/// "\"abc\"...", "[\"ls\", \"-l\"]", "{AF_INET, 127.0.0.1:80}", "{1.500000000}"; "" if it could not be
/// read. `length` is what the argument or the result says.
std::string user_text(UserValue kind, std::span<const Fetched* const> fetched,
                      std::uint64_t length);

}  // namespace vmsight
