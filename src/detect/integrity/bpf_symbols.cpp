#include "detect/integrity/bpf_symbols.h"

#include "state/lists.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_bpf_symbols = 1U << 16;

}  // namespace

Result<std::vector<BpfSymbol>> read_bpf_symbols(Kernel& kernel, Reader& reader) {
  std::vector<BpfSymbol> symbols;
  Members members(kernel);
  const GuestVirt head = members.symbol("bpf_kallsyms");
  const Offset link = members.offset("bpf_ksym", "lnode");
  const Offset start = members.offset("bpf_ksym", "start");
  const Offset end = members.offset("bpf_ksym", "end");
  if (!members.check()) return symbols;
  const bool whole = walk_list(reader, head, [&](GuestVirt node) {
    symbols.push_back({reader.pointer(node - link + start), reader.pointer(node - link + end)});
    if (symbols.size() > max_bpf_symbols) reader.set_fault(node);
  });
  if (whole) return symbols;
  return Error{.code = ErrorCode::fault, .message = "bpf_kallsyms is not readable"};
}

}  // namespace vmsight
