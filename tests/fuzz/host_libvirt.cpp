#include "host/libvirt.h"

#include <cstddef>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static_cast<void>(vmsight::parse_libvirt_status({reinterpret_cast<const char*>(data), size}));
  return 0;
}
