// The network namespaces of the guest.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "state/context.h"
#include "vmsight/kernel.h"

namespace vmsight {

struct NetNamespace {
  GuestVirt net;            // struct net
  std::uint64_t inode = 0;  // as /proc/PID/ns/net shows it
};

class NetNamespaces {
 public:
  static Result<NetNamespaces> resolve(Kernel& kernel);
  /// All of them, in the kernel's order; what could not be read becomes a problem of `where`.
  std::vector<NetNamespace> list(Context& context, const char* where) const;
  std::uint64_t inode(Reader& reader, GuestVirt net) const { return reader.u32(net + inum_); }

 private:
  GuestVirt head_;
  std::uint32_t list_ = 0, inum_ = 0;
};

}  // namespace vmsight
