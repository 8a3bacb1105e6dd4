// How what went wrong reaches a program in C.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "vmsight/result.h"
#include "vmsight/vmsight.h"

namespace vmsight::c {

inline Error wrong(std::string what) {
  return {.code = ErrorCode::usage, .message = std::move(what), .hint = "see vmsight.h"};
}

/// usage for a pointer that must lead somewhere.
inline Result<void> needed(const void* pointer, const char* name) {
  if (pointer != nullptr) return {};
  return wrong(std::string("the argument `") + name + "` is NULL");
}

/// Fills in as much of a structure as the program that was compiled with it knows of. usage if it does not say
/// how much that is.
template <typename Structure>
Result<int> give(Structure* to, Structure value) {
  VMSIGHT_TRY_VOID(needed(to, "the structure to fill in"));
  if (to->size <= sizeof(to->size)) return wrong("a structure does not say its size");
  value.size = to->size;
  std::memcpy(to, &value, std::min(value.size, sizeof(Structure)));
  return 0;
}

/// What the program has set of a structure of options; the rest is zero. NULL: all of it. What a program that
/// is newer than the library sets beyond our end is not ours to ignore.
template <typename Structure>
Result<Structure> take(const Structure* from) {
  Structure taken{};
  if (from == nullptr) return taken;
  if (from->size <= sizeof(from->size)) return wrong("a structure does not say its size");
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  const std::size_t size = std::min(from->size, sizeof(Structure));
  constexpr std::size_t most = 1u << 16;
  const bool more = from->size > most || std::any_of(bytes + size, bytes + from->size,
                                                     [](unsigned char byte) { return byte != 0; });
  if (more) {
    return Error{.code = ErrorCode::unsupported,
                 .message =
                     "an option is set that this library does not know: it is older than the "
                     "program"};
  }
  std::memcpy(&taken, from, size);
  return taken;
}

void tell(vmsight_error* to, const Error& error);

/// For vmsight_free().
Result<char*> text(std::string_view text);

/// Calls what gives a Result, and `failed` if that is an error, or an exception.
template <typename Failed, typename Call>
auto guarded(vmsight_error* error, Failed failed, const Call& call)
    -> std::remove_cvref_t<decltype(*call())> {
  try {
    auto result = call();
    if (result) return *std::move(result);
    if (error != nullptr) tell(error, result.error());
  } catch (const std::bad_alloc&) {
    if (error != nullptr)
      tell(error, {.code = ErrorCode::os, .message = "out of memory", .os_errno = ENOMEM});
  } catch (const std::exception& exception) {
    if (error != nullptr) tell(error, {.code = ErrorCode::bad_data, .message = exception.what()});
  }
  return failed;
}

}  // namespace vmsight::c
