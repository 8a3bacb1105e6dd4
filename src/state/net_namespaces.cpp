#include "state/net_namespaces.h"

#include <fmt/format.h>

#include "state/lists.h"
#include "state/members.h"

namespace vmsight {

namespace {
constexpr std::size_t max_namespaces = 1u << 16;  // bounds what a forged list costs
}  // namespace

Result<NetNamespaces> NetNamespaces::resolve(Kernel& kernel) {
  Members members(kernel);
  NetNamespaces self;
  self.head_ = members.symbol("net_namespace_list");
  self.list_ = members.offset("net", "list");
  self.inum_ = members.offset("net", "ns.inum");
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

std::vector<NetNamespace> NetNamespaces::list(Context& context, const char* where) const {
  Reader& reader = context.reader;
  std::vector<NetNamespace> found;
  reader.clear_fault();
  const bool complete = walk_list(reader, head_, [&](GuestVirt node) {
    if (found.size() == max_namespaces) return reader.set_fault(node);
    const GuestVirt net = node - list_;
    const std::uint64_t number = inode(reader, net);
    if (reader.ok()) found.push_back({net, number});
    reader.clear_fault();
  });
  if (!complete) {
    context.state.problem(where, fmt::format("the list of network namespaces breaks at {}",
                                             reader.fault().value_or(head_)));
    reader.clear_fault();
  }
  return found;
}

}  // namespace vmsight
