// Names of network devices by their index, for what is bound to one.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "state/context.h"
#include "state/members.h"

namespace vmsight {

class DeviceNames {
 public:
  /// What one view has learnt, and may still spend.
  struct View {
    std::map<std::pair<std::uint64_t, unsigned>, std::string_view> names;  // by net and index
    std::set<std::uint64_t> known;                                         // each net once
    std::size_t devices_left = 1u << 17;
  };
  static DeviceNames resolve(Members& members);
  /// "" if the namespace `net` has no such device, or it cannot be read.
  std::string_view name(Context& context, GuestVirt net, unsigned index, View& view) const;

 private:
  void learn(Context& context, GuestVirt net, View& view) const;

  Offset base_ = 0, list_ = 0;
  Member name_, index_;
};

}  // namespace vmsight
