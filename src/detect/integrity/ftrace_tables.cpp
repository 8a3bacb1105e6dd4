#include "detect/integrity/ftrace_tables.h"

#include "state/lists.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_tracers = 1U << 14;
constexpr std::uint64_t max_hash_bits = 16;  // FTRACE_HASH_MAX_BITS is 12
constexpr std::size_t max_direct = 1U << 18;
constexpr std::size_t max_record_pages = 1U << 14;
constexpr std::uint32_t max_places = 1U << 20;

Error faulty(std::string_view what) {
  return {.code = ErrorCode::fault, .message = std::string(what) + " is not readable"};
}

struct TracerMembers {
  Offset function = 0, next = 0, trampoline = 0, size = 0, direct = 0;

  static Result<TracerMembers> resolve(Kernel& kernel) {
    Members members(kernel);
    TracerMembers all{.function = members.offset("ftrace_ops", "func"),
                      .next = members.offset("ftrace_ops", "next"),
                      .trampoline = members.find("ftrace_ops", "trampoline"),
                      .size = members.find("ftrace_ops", "trampoline_size"),
                      .direct = members.find("ftrace_ops", "direct_call")};
    VMSIGHT_TRY_VOID(members.check());
    return all;
  }

  FtraceTracer read(Reader& reader, GuestVirt at) const {
    const auto pointer_if = [&](Offset offset) {
      return offset == absent ? GuestVirt() : reader.pointer(at + offset);
    };
    return {.at = at,
            .handler = reader.pointer(at + function),
            .trampoline = pointer_if(trampoline),
            .trampoline_size = pointer_if(size).raw(),
            .direct = pointer_if(direct)};
  }
};

}  // namespace

Result<std::vector<FtraceTracer>> read_ftrace_tracers(Kernel& kernel, Reader& reader) {
  VMSIGHT_TRY(const TracerMembers tracer, TracerMembers::resolve(kernel));
  Members members(kernel);
  const GuestVirt list = members.symbol("ftrace_ops_list");
  const GuestVirt end = members.symbol("ftrace_list_end");
  VMSIGHT_TRY_VOID(members.check());
  std::vector<FtraceTracer> tracers;
  GuestVirt at = reader.pointer(list);
  while (reader.ok() && at != end && at != GuestVirt()) {
    if (tracers.size() == max_tracers) return faulty("ftrace_ops_list (it has no end)");
    tracers.push_back(tracer.read(reader, at));
    at = reader.pointer(at + tracer.next);
  }
  // One that is switched off leaves the list first, and then its places.
  const auto leaving = kernel.symbol("removed_ops");
  if (leaving && (at = reader.pointer(*leaving)) != GuestVirt())
    tracers.push_back(tracer.read(reader, at));
  if (!reader.ok()) return faulty("ftrace_ops_list");
  return tracers;
}

Result<std::vector<FtraceTracer>> read_ftrace_trampolines(Kernel& kernel, Reader& reader) {
  std::vector<FtraceTracer> tracers;
  const auto tracer = TracerMembers::resolve(kernel);
  Members members(kernel);
  const GuestVirt head = members.symbol("ftrace_ops_trampoline_list");
  const Offset link = members.offset("ftrace_ops", "list");
  if (!tracer || !members.check()) return tracers;
  const bool whole = walk_list(reader, head, [&](GuestVirt node) {
    tracers.push_back(tracer->read(reader, node - link));
    if (tracers.size() == max_tracers) reader.set_fault(node);
  });
  if (!whole) return faulty("ftrace_ops_trampoline_list");
  return tracers;
}

Result<std::map<GuestVirt, GuestVirt>> read_ftrace_direct(Kernel& kernel, Reader& reader) {
  std::map<GuestVirt, GuestVirt> direct;
  Members members(kernel);
  const GuestVirt symbol = members.symbol("direct_functions");
  const Offset bits = members.offset("ftrace_hash", "size_bits");
  const Offset buckets = members.offset("ftrace_hash", "buckets");
  const Offset ip = members.offset("ftrace_func_entry", "ip");
  const Offset target = members.offset("ftrace_func_entry", "direct");
  const Offset link = members.offset("ftrace_func_entry", "hlist");
  if (!members.check()) return direct;
  const GuestVirt hash = reader.pointer(symbol);
  if (reader.ok() && hash == GuestVirt()) return direct;
  const std::uint64_t size_bits = reader.u64(hash + bits);
  const GuestVirt first = reader.pointer(hash + buckets);
  if (size_bits > max_hash_bits) return faulty("direct_functions (its size)");
  if (reader.ok() && first == GuestVirt()) return direct;
  each_chain(reader, {.start = first, .count = 1ULL << size_bits},
             [&](std::uint64_t, std::uint64_t chain) {
               walk_chain(reader, chain, [&](GuestVirt node) {
                 direct[reader.pointer(node - link + ip)] = reader.pointer(node - link + target);
                 if (direct.size() > max_direct) reader.set_fault(node);
               });
             });
  if (!reader.ok()) return faulty("direct_functions");
  return direct;
}

Result<std::vector<GuestVirt>> read_ftrace_places(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const GuestVirt start = members.symbol("ftrace_pages_start");
  const Offset next = members.offset("ftrace_page", "next");
  const Offset records = members.offset("ftrace_page", "records");
  const Offset index = members.offset("ftrace_page", "index");
  const Offset ip = members.offset("dyn_ftrace", "ip");
  const std::uint32_t size = members.size("dyn_ftrace");
  VMSIGHT_TRY_VOID(members.check());
  std::vector<GuestVirt> places;
  GuestVirt page = reader.pointer(start);
  for (std::size_t i = 0; page != GuestVirt() && reader.ok(); ++i) {
    const GuestVirt first = reader.pointer(page + records);
    const std::uint32_t count = reader.u32(page + index);
    if (i == max_record_pages || count > max_places - places.size())
      return faulty("ftrace_pages_start (it has no end)");
    for (std::uint32_t n = 0; n < count && reader.ok(); ++n)
      places.push_back(reader.pointer(first + std::uint64_t{n} * size + ip));
    page = reader.pointer(page + next);
  }
  if (!reader.ok()) return faulty("ftrace_pages_start");
  return places;
}

}  // namespace vmsight
