// What a sink lost, and whether it has said so.
#pragma once

#include <cstdint>

#include "vmsight/result.h"

namespace vmsight::detect {

class Losses {
 public:
  /// So many alarms are lost. The error, if it is the first since an alarm was delivered.
  Result<void> lose(Error error, std::uint64_t alarms = 1) {
    count_ += alarms;
    if (fails_) return {};
    fails_ = true;
    return error;
  }
  void delivered() { fails_ = false; }
  std::uint64_t count() const { return count_; }

 private:
  std::uint64_t count_ = 0;
  bool fails_ = false;
};

}  // namespace vmsight::detect
