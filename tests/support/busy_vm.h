// A child process whose threads write its RAM all the time, and that notices everything that a
// borrowed thread must not notice.
#pragma once

#include <atomic>
#include <string>

#include "support/child_vm.h"

namespace vmsight::test {

/// Worker w writes one number into every page of its own run of pages, in order, and counts it up.
/// The workers are named as QEMU names threads of vCPUs.
class BusyVm {
 public:
  static constexpr unsigned workers = 2;
  static constexpr std::uint64_t pages_each = 64;
  static constexpr std::uint64_t ram_size = 16 << 20;
  static constexpr std::uint64_t first_hole = workers * pages_each * page_size;  // and all above

  explicit BusyVm(Backing backing);
  ~BusyVm() { vm_.end(); }

  ChildVm& vm() { return vm_; }
  std::uint64_t rounds(unsigned worker) const { return control_->rounds[worker]; }

  /// What is wrong with the process, or "": it stands, is traced, has children or descriptors that
  /// it had not, would give its RAM to children, or one of its system calls was disturbed.
  std::string damage() const;
  /// The same, once all threads have gone on, within a second.
  std::string damage_after_a_second() const;
  /// Those that are under way too.
  void forgive_disturbed_calls();

 private:
  struct Control {
    std::atomic<std::uint64_t> rounds[workers]{};
    std::atomic<std::uint64_t> main_rounds = 0;
    std::atomic<std::uint64_t> disturbed = 0;  // system calls of the main thread
  };

  static void work(Control& control, std::byte* ram);
  static void run_worker(Control& control, unsigned worker, std::byte* ram);
  static void run_main(Control& control);

  Mapping shared_;
  Control* control_;
  ChildVm vm_;
  std::size_t descriptors_ = 0;
};

}  // namespace vmsight::test
