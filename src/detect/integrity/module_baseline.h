// The code of modules as it was when each was seen first after it was loaded.
//
// Modules are relocated when they are loaded, so a baseline is of one boot. It is kept in a file as
// the kernel's own (text_baseline.h), whose build-id is then that of the boot:
//
//   text   "<name> <load, hex> <address, hex> <size, hex>\n" for each module, "\n", and their code
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "detect/integrity/text_baseline.h"
#include "vmsight/address.h"

namespace vmsight {

struct ModuleCode {
  std::string name;
  std::uint64_t load = 0;  // another number each time that a module is loaded
  GuestVirt start;
  std::vector<std::byte> code;
  bool is_same_load(const ModuleCode& other) const {
    return name == other.name && load == other.load && start == other.start &&
           code.size() == other.code.size();
  }
};

std::vector<std::byte> pack_modules(const std::vector<ModuleCode>& modules);
/// bad_data if it is not what pack_modules() makes.
Result<std::vector<ModuleCode>> unpack_modules(std::span<const std::byte> packed);

}  // namespace vmsight
