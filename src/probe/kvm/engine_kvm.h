// The kvm engine as `study probes` opens it, to measure what a trap costs whose hits are rejected.
#pragma once

#include "vmsight/probe.h"

namespace vmsight {

struct KvmEngineOptions {
  enum class Blind { not_at_all, to_this_vm, to_its_sites, to_everything };
  /// Traps are armed, but the program takes the VM for another, does not know the addresses, or is not
  /// called at all.
  Blind blind = Blind::not_at_all;
  bool end_storms = true;  // disarms probes that are hit too often
};
Result<std::unique_ptr<ProbeEngine>> open_kvm_engine(const EngineSetting& setting,
                                                     const KvmEngineOptions& options);

}  // namespace vmsight
