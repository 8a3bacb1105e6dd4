#include "detect/integrity/kprobe_table.h"

#include "state/lists.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint64_t buckets = 64;  // KPROBE_TABLE_SIZE, kernel/kprobes.c
constexpr std::size_t max_probes = 1U << 16;

}  // namespace

Result<std::vector<Kprobe>> read_kprobes(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const GuestVirt table = members.symbol("kprobe_table");
  const Offset link = members.offset("kprobe", "hlist"), list = members.offset("kprobe", "list");
  const Offset address = members.offset("kprobe", "addr");
  const Offset pre = members.offset("kprobe", "pre_handler");
  const Offset post = members.offset("kprobe", "post_handler");
  VMSIGHT_TRY_VOID(members.check());
  std::vector<Kprobe> probes;
  const auto add = [&](GuestVirt at) {
    probes.push_back({.at = at,
                      .address = reader.pointer(at + address),
                      .pre_handler = reader.pointer(at + pre),
                      .post_handler = reader.pointer(at + post)});
    if (probes.size() > max_probes) reader.set_fault(at);
  };
  reader.clear_fault();
  each_chain(reader, {.start = table, .count = buckets}, [&](std::uint64_t, std::uint64_t first) {
    walk_chain(reader, first, [&](GuestVirt node) {
      const GuestVirt at = node - link;
      add(at);
      // Of a probe alone the list is empty; of an aggregate it has the probes themselves.
      if (reader.u64(at + list) != 0)
        walk_list(reader, at + list, [&](GuestVirt other) { add(other - list); });
    });
  });
  const bool whole = reader.ok();
  reader.clear_fault();
  if (!whole) return Error{ErrorCode::fault, "kprobe_table is not readable"};
  return probes;
}

}  // namespace vmsight
