// What the kernel is doing to its own code just now: what a check then finds may be a change on its way.
#pragma once

#include <optional>
#include <vector>

#include "vmsight/kernel.h"
#include "vmsight/memory.h"

namespace vmsight {

class KernelChanges {
 public:
  /// Of the kernel's own work; a bit for each kind.
  enum Kind : unsigned {
    none = 0,
    code = 1,          // bytes of code are changed, and the tables that say how they shall be
    module_start = 2,  // a module's init functions have run, and their memory is given back
  };

  KernelChanges(Kernel& kernel, GuestMemory& memory) : kernel_(kernel), memory_(memory) {}

  /// Whether one of `kinds` is under way, by what memory holds now: what was read before is not asked. What this
  /// kernel does not let us see, or cannot be read, counts as not under way.
  bool under_way(unsigned kinds);

 private:
  void find_places();
  bool holds(const std::vector<GuestVirt>& locks);
  bool gives_back_module_start();
  bool worker_runs(GuestVirt function);
  std::uint64_t word_now(GuestVirt at);

  Kernel& kernel_;
  GuestMemory& memory_;
  bool knows_places_ = false;
  std::vector<GuestVirt> code_locks_, module_locks_;  // words that are not 0 while one is held
  std::optional<GuestVirt> init_free_list_, do_free_init_, kthreadd_;
};

}  // namespace vmsight
