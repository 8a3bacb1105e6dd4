// Errors as values. Every fallible function of vmsight returns Result<T>.
//
// Branch on Error::code, never on text. `message` is lower case and names action, object and
// cause ("read gpa:0x1000: not backed by RAM"); `hint` says what the user can do about it.
#pragma once

#include "vmsight/public.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace VMSIGHT_PUBLIC vmsight {

enum class ErrorCode {
  os,           // a system call failed; Error::os_errno is set
  fault,        // guest memory that is not mapped or not RAM; Error::address is set
  not_found,    // no such VM, symbol, type, process ...
  ambiguous,    // several candidates; the message names them
  unsupported,  // this host, VM or kernel cannot do it; the message says why
  bad_data,     // what was read contradicts itself
  permission,   // rights are missing
  timeout,      // the other side did not answer in time
  vm_gone,      // the VM ended, rebooted or was migrated while it was read
  usage,        // the caller's arguments are wrong
};

struct Error {
  ErrorCode code = ErrorCode::bad_data;
  std::string message;
  std::string hint{};                      // optional second line
  int os_errno = 0;                        // for ErrorCode::os and permission
  std::optional<std::uint64_t> address{};  // faulting address, for ErrorCode::fault
};

/// Whether nothing more can be read after it: the VM has ended or rebooted, or reading itself does not work.
inline bool ends_reading(const Error& error) {
  return error.code == ErrorCode::vm_gone || error.code == ErrorCode::os;
}

/// A system call that failed: appends strerror(err) to "action object".
Error os_error(int err, std::string action);

/// Our own bug: never reached by data of a guest or of QEMU. Stays on in release builds.
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
#define VMSIGHT_CHECK(expr) \
  ((expr) ? static_cast<void>(0) : ::vmsight::check_failed(#expr, __FILE__, __LINE__))

/// Either a T or an Error; shaped like C++23's std::expected<T, Error>.
template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : storage_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(implicit)
  Result(Error error) : storage_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(implicit)

  bool has_value() const { return storage_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & { return get(); }
  const T& value() const& { return get(); }
  T&& value() && { return std::move(get()); }
  T& operator*() & { return get(); }
  const T& operator*() const& { return get(); }
  T&& operator*() && { return std::move(get()); }
  T* operator->() { return &get(); }
  const T* operator->() const { return &get(); }
  template <typename U>
  T value_or(U&& other) && {
    return has_value() ? std::move(get()) : static_cast<T>(std::forward<U>(other));
  }

  Error& error() & { return failure(); }
  const Error& error() const& { return failure(); }
  Error&& error() && { return std::move(failure()); }

 private:
  T& get() {
    VMSIGHT_CHECK(has_value());
    return *std::get_if<0>(&storage_);
  }
  const T& get() const {
    VMSIGHT_CHECK(has_value());
    return *std::get_if<0>(&storage_);
  }
  Error& failure() {
    VMSIGHT_CHECK(!has_value());
    return *std::get_if<1>(&storage_);
  }
  const Error& failure() const {
    VMSIGHT_CHECK(!has_value());
    return *std::get_if<1>(&storage_);
  }

  std::variant<T, Error> storage_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(implicit)
  bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  Error& error() & { return failure(); }
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(failure()); }

 private:
  Error& failure() {
    VMSIGHT_CHECK(error_.has_value());
    return *error_;
  }
  std::optional<Error> error_;
};

/// `VMSIGHT_TRY(auto x, f());` - x = *f(), or returns f()'s error from the current function.
#define VMSIGHT_CONCAT_(a, b) a##b
#define VMSIGHT_CONCAT(a, b) VMSIGHT_CONCAT_(a, b)
#define VMSIGHT_TRY_IMPL(tmp, decl, expr)  \
  auto tmp = (expr);                       \
  if (!tmp) return std::move(tmp).error(); \
  decl = *std::move(tmp)
#define VMSIGHT_TRY(decl, expr) VMSIGHT_TRY_IMPL(VMSIGHT_CONCAT(vmsight_try_, __LINE__), decl, expr)
/// The same for Result<void>.
#define VMSIGHT_TRY_VOID(expr) \
  if (auto vmsight_result = (expr); !vmsight_result) return std::move(vmsight_result).error()

}  // namespace vmsight
