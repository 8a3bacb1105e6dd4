// One moment of a guest that runs: the whole state is read, then all that was read for it is read again. If nothing
// differs, the state was so; else it is read anew, a bounded number of times.
#pragma once

#include <memory>
#include <string>

#include "base/memory_decorator.h"
#include "kernel/read_log.h"
#include "state/state_reader.h"

namespace vmsight {

class ProvenStateReader final : public StateReader {
 public:
  static Result<std::unique_ptr<ProvenStateReader>> create(Kernel& kernel, GuestMemory& live,
                                                           GuestMemory* otherwise,
                                                           const ProofOptions& options);

  Result<void> read(const StateOptions& options, State& into) override;

 private:
  ProvenStateReader(Kernel& kernel, GuestMemory& live, const ProofOptions& options)
      : kernel_(kernel), live_(live), as_if_halted_(live), options_(options) {}
  Result<bool> read_once(const StateOptions& options, State& into, std::string& why);

  Kernel& kernel_;
  GuestMemory& live_;
  AsIfHalted as_if_halted_;
  ProofOptions options_;
  ReadLog log_;
  State held_;  // proven, but of the middle of a change
  std::unique_ptr<LinuxStateReader> reader_, otherwise_;
};

}  // namespace vmsight
