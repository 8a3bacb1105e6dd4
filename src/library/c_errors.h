// How what went wrong reaches a program in C.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>

#include "vmsight/result.h"
#include "vmsight/vmsight.h"

namespace vmsight::c {

/// Fills in as much of a structure as the program that was compiled with it knows of.
template <typename Structure>
void give(Structure* to, Structure value) {
  value.size = to->size;
  std::memcpy(to, &value, std::min(value.size, sizeof(Structure)));
}

/// What the program has set of a structure of options; the rest is zero. NULL: all of it.
template <typename Structure>
Structure take(const Structure* from) {
  Structure taken{};
  if (from != nullptr) std::memcpy(&taken, from, std::min(from->size, sizeof(Structure)));
  return taken;
}

void tell(vmsight_error* to, const Error& error);

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
