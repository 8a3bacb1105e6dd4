// Typed addresses. The wrong address space must not compile.
//
//   GuestVirt  an address of guest code; means nothing without an AddressSpace
//   GuestPhys  an address on the guest's memory bus; AddressSpace::translate makes it
//   HostVirt   an address inside the QEMU process; RamMap makes it
#pragma once

#include "vmsight/public.h"

#include <fmt/format.h>
#include <compare>
#include <cstdint>
#include <optional>

namespace VMSIGHT_PUBLIC vmsight {

inline constexpr std::uint64_t page_size = 4096;
inline constexpr unsigned page_shift = 12;

template <typename Tag>
class Address {
 public:
  constexpr Address() = default;
  constexpr explicit Address(std::uint64_t raw) : raw_(raw) {}

  constexpr std::uint64_t raw() const { return raw_; }
  constexpr auto operator<=>(const Address&) const = default;

  /// Addition wraps, as it does in the guest; `checked_add` is for lengths that a guest chose.
  constexpr Address operator+(std::uint64_t offset) const { return Address(raw_ + offset); }
  constexpr Address operator-(std::uint64_t offset) const { return Address(raw_ - offset); }
  constexpr std::uint64_t operator-(Address other) const { return raw_ - other.raw_; }
  constexpr std::optional<Address> checked_add(std::uint64_t offset) const {
    if (raw_ + offset < raw_) return std::nullopt;
    return Address(raw_ + offset);
  }
  constexpr Address page() const { return Address(raw_ & ~(page_size - 1)); }
  constexpr std::uint64_t page_offset() const { return raw_ & (page_size - 1); }
  constexpr std::uint64_t pfn() const { return raw_ >> page_shift; }

 private:
  std::uint64_t raw_ = 0;
};

struct GuestVirtTag {
  static constexpr const char* prefix = "gva";
};
struct GuestPhysTag {
  static constexpr const char* prefix = "gpa";
};
struct HostVirtTag {
  static constexpr const char* prefix = "hva";
};
using GuestVirt = Address<GuestVirtTag>;
using GuestPhys = Address<GuestPhysTag>;
using HostVirt = Address<HostVirtTag>;

}  // namespace vmsight

template <typename Tag>
struct fmt::formatter<vmsight::Address<Tag>> {
  constexpr auto parse(format_parse_context& ctx) { return ctx.begin(); }
  template <typename Context>
  auto format(const vmsight::Address<Tag>& address, Context& ctx) const {
    return fmt::format_to(ctx.out(), "{}:{:#x}", Tag::prefix, address.raw());
  }
};
