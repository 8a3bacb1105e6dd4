// Where a kernel has code: its own text, that of its modules, and the names of what is there.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/module_symbols.h"
#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

class KernelPlaces {
 public:
  /// Symbols and the modules that are listed now. unsupported if the kernel's text has no bounds.
  static Result<KernelPlaces> read(Kernel& kernel, Reader& reader);

  GuestVirt text_start() const { return start_; }
  GuestVirt text_end() const { return end_; }
  bool in_kernel_text(GuestVirt address) const { return address >= start_ && address < end_; }
  /// In the memory of a listed module.
  const LoadedModule* module_at(GuestVirt address) const;
  bool is_code(GuestVirt address) const {
    return in_kernel_text(address) || module_at(address) != nullptr;
  }
  std::span<const LoadedModule> modules() const { return modules_; }
  /// Why the list of modules is not complete; "" if it is.
  const std::string& modules_problem() const { return modules_problem_; }

  /// All symbols of exactly this address.
  std::span<const Symbol> symbols_at(GuestVirt address) const;
  std::span<const Symbol> symbols() const { return symbols_; }
  /// "do_exit+0x10", "[module]+0x10", "0xffff..." for a place without a name.
  std::string name(GuestVirt address) const;

 private:
  GuestVirt start_{}, end_{};
  std::vector<LoadedModule> modules_;
  std::string modules_problem_;
  std::span<const Symbol> symbols_;  // the kernel's; sorted by address
};

}  // namespace vmsight
