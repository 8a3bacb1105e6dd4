#include "library/c_errors.h"

#include <cstdlib>

namespace vmsight::c {
namespace {

template <std::size_t N>
void put(char (&into)[N], const std::string& text) {
  into[text.copy(into, N - 1)] = '\0';
}

vmsight_code code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::os:
      return VMSIGHT_OS;
    case ErrorCode::fault:
      return VMSIGHT_FAULT;
    case ErrorCode::not_found:
      return VMSIGHT_NOT_FOUND;
    case ErrorCode::ambiguous:
      return VMSIGHT_AMBIGUOUS;
    case ErrorCode::unsupported:
      return VMSIGHT_UNSUPPORTED;
    case ErrorCode::bad_data:
      return VMSIGHT_BAD_DATA;
    case ErrorCode::permission:
      return VMSIGHT_PERMISSION;
    case ErrorCode::timeout:
      return VMSIGHT_TIMEOUT;
    case ErrorCode::vm_gone:
      return VMSIGHT_VM_GONE;
    case ErrorCode::usage:
      return VMSIGHT_USAGE;
  }
  return VMSIGHT_BAD_DATA;
}

}  // namespace

void tell(vmsight_error* to, const Error& error) {
  vmsight_error told{};
  told.code = code_of(error.code);
  told.os_errno = error.os_errno;
  told.address = error.address.value_or(0);
  put(told.message, error.message);
  put(told.hint, error.hint);
  static_cast<void>(give(to, told));
}

Result<char*> text(std::string_view text) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) return os_error(ENOMEM, "copy a text");
  copy[text.copy(copy, text.size())] = '\0';
  return copy;
}

}  // namespace vmsight::c
