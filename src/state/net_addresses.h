// Addresses of a network device, with what `ip addr` says of each.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "state/context.h"
#include "state/jiffies.h"
#include "state/members.h"

namespace vmsight {

/// Names of IFA_F_* in the order of `ip addr`; views of static strings. An address that is not
/// permanent is "dynamic"; what is "secondary" of IPv4 is "temporary" of IPv6.
std::vector<std::string_view> address_flags(std::uint32_t flags, bool ipv6);
/// "global", "site", "link", "host", "nowhere": RT_SCOPE_*; "" for a number without a name.
std::string_view address_scope(unsigned scope);

class NetAddressesReader {
 public:
  static NetAddressesReader resolve(Members& members);
  /// Appends to `into`; a fault of the reader says that there may be more. `left` goes down with
  /// each address, whatever chain a guest forges.
  void read(Context& context, GuestVirt device, std::size_t& left, NetDevice& into) const;

 private:
  struct Lifetime {
    Offset valid = 0, preferred = 0, stamp = 0;
  };
  void read_ipv4(Context& context, GuestVirt device, std::size_t& left, NetDevice& into) const;
  void read_ipv6(Context& context, GuestVirt device, std::size_t& left, NetDevice& into) const;
  NetAddress ipv4(Context& context, GuestVirt entry) const;
  NetAddress ipv6(Context& context, GuestVirt entry) const;
  void read_lifetime(Context& context, GuestVirt entry, const Lifetime& at, bool for_ever,
                     NetAddress& into) const;

  Jiffies jiffies_;
  Offset ip_ptr_ = 0, ifa_list_ = 0, ifa_next_ = 0, ifa_local_ = 0, ifa_address_ = 0;
  Offset ifa_broadcast_ = 0, ifa_prefix_ = 0, ifa_scope_ = 0, ifa_flags_ = 0;
  Member ifa_label_;
  Lifetime ipv4_life_, ipv6_life_;
  std::optional<Offset> ip6_ptr_;  // a kernel may have no IPv6
  Offset addr_list_ = 0, if_list_ = 0, addr6_ = 0, peer6_ = 0, prefix6_ = 0, flags6_ = 0;
  Member scope6_;
};

}  // namespace vmsight
