// The guest's processors, as /proc/cpuinfo shows them.
#pragma once

#include <cstdint>
#include <vector>

#include "state/context.h"

namespace vmsight {

class CpusReader {
 public:
  static Result<CpusReader> resolve(Kernel& kernel);
  /// One record for each present CPU; /proc/cpuinfo leaves out those that are not online.
  void read(Context& context) const;

 private:
  /// Bit `cpu` of a struct cpumask.
  static bool in_mask(Reader& reader, GuestVirt mask, std::size_t cpu);
  void read_cpu(Context& context, std::size_t cpu) const;

  GuestVirt present_, online_, info_, khz_;
  Member vendor_, model_;
  std::uint32_t cache_ = 0;
};

}  // namespace vmsight
