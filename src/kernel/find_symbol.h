// A symbol of the kernel or of any of its modules, by name.
#pragma once

#include <string_view>

#include "vmsight/kernel.h"

namespace vmsight {

/// "jiffies_64", "vfs_read"; "virtio_net:virtnet_open" is that of the module. Of several modules that
/// have one of the name, the first by address. not_found.
Result<GuestVirt> find_symbol(Kernel& kernel, std::string_view name);

}  // namespace vmsight
