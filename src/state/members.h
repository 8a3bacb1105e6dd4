// Collecting where a reader's members and symbols lie, once an attach.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "vmsight/kernel.h"

namespace vmsight {

using Offset = std::uint32_t;  // bytes from the start of a structure
inline constexpr Offset absent = ~Offset{0};

/// Asks the kernel for members and symbols; remembers the first required one that is missing,
/// so that a resolver reads as a plain list. `check()` at its end says whether all were there.
class Members {
 public:
  explicit Members(Kernel& kernel) : kernel_(kernel) {}

  Kernel& kernel() { return kernel_; }
  Member member(std::string_view type, std::string_view path);
  std::uint32_t offset(std::string_view type, std::string_view path) {
    return member(type, path).offset;
  }
  /// The first of these that the kernel has: members are renamed and moved between kernels.
  Offset offset(std::string_view type, std::initializer_list<std::string_view> paths);
  /// The same for what only some kernels have; `absent` if there is none.
  Offset find(std::string_view type, std::initializer_list<std::string_view> paths);
  Offset find(std::string_view type, std::string_view path) { return find(type, {path}); }
  std::uint32_t size(std::string_view type);
  GuestVirt symbol(std::string_view name);
  /// 0 if the kernel has no such symbol.
  GuestVirt find_symbol(std::string_view name) {
    return kernel_.symbol(name).value_or(GuestVirt(0));
  }
  /// For what only some kernels have.
  std::optional<std::uint32_t> optional_offset(std::string_view type, std::string_view path);

  /// unsupported, naming what is missing.
  Result<void> check() const;

 private:
  void miss(std::string what);

  Kernel& kernel_;
  std::string missing_;
};

}  // namespace vmsight
