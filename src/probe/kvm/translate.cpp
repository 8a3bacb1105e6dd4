#include "probe/kvm/translate.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <set>

#include "kernel/guest_text.h"
#include "probe/current_task.h"
#include "vmsight/reader.h"

namespace vmsight::kvm {
namespace {

// Ours are in the order of VcpuRegisters: rax rbx rcx rdx rsi rdi rsp rbp r8 ...
constexpr std::array<std::uint8_t, 16> to_kvm = {
    kvm_rax, kvm_rbx, kvm_rcx, kvm_rdx, kvm_rsi, kvm_rdi, kvm_rsp, kvm_rbp,
    8,       9,       10,      11,      12,      13,      14,      15};

Error too_much(const ProbeOrder& order, std::string_view what) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("probe {}: {}", escape_bytes(to_string(order.site)), what),
          .hint = "--engine gdbstub has no such limit"};
}

window to_window(const AddressSpace::Window& window) {
  return {window.start.raw(), window.end.raw(), window.delta};
}

Result<void> describe_ram(const Vm& vm, guest& guest) {
  std::vector<RamRange> ranges(vm.ram().ranges().begin(), vm.ram().ranges().end());
  // The largest first: most addresses are there.
  std::sort(ranges.begin(), ranges.end(),
            [](const RamRange& a, const RamRange& b) { return a.size > b.size; });
  if (ranges.size() > max_ranges) {
    return Error{
        .code = ErrorCode::unsupported,
        .message = fmt::format(
            "watch KVM: the guest's RAM has {} pieces, at most {} are known to the program",
            ranges.size(), static_cast<int>(max_ranges))};
  }
  guest.range_count = static_cast<__u32>(ranges.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    guest.ranges[i] = {ranges[i].start.raw(), ranges[i].end().raw(),
                       ranges[i].host.raw() - ranges[i].start.raw()};
  }
  return {};
}

/// KVM knows a vCPU by its APIC's number, Linux by one of its own. Without a table they are equal.
std::vector<std::uint32_t> apic_ids(Kernel& kernel, Reader& reader) {
  const auto offsets = kernel.per_cpu_offsets();
  std::vector<std::uint32_t> ids(offsets.size());
  for (std::size_t cpu = 0; cpu < ids.size(); ++cpu) ids[cpu] = static_cast<std::uint32_t>(cpu);
  const auto table = kernel.symbol("x86_cpu_to_apicid");
  if (!table) return ids;
  std::vector<std::uint32_t> found(ids.size());
  std::set<std::uint32_t> all;
  for (std::size_t cpu = 0; cpu < ids.size(); ++cpu) {
    if (offsets[cpu] == 0) continue;
    found[cpu] = reader.u16(kernel.per_cpu(*table, cpu));  // u32 on newer kernels: its low half
    if (!all.insert(found[cpu]).second) return ids;
  }
  return reader.ok() ? found : ids;
}

void describe_current(const Vm& vm, Kernel& kernel, Reader& reader, GuestVirt current,
                      guest& guest) {
  reader.clear_fault();
  const auto ids = apic_ids(kernel, reader);
  reader.clear_fault();
  for (std::size_t cpu = 0; cpu < ids.size(); ++cpu) {
    if (kernel.per_cpu_offsets()[cpu] == 0 || ids[cpu] >= max_apic_id) continue;
    const auto at = kernel.space().translate(reader.memory(), kernel.per_cpu(current, cpu));
    const RamRange* range = at ? vm.ram().find(*at) : nullptr;
    if (range != nullptr) guest.current[ids[cpu]] = (range->host + (*at - range->start)).raw();
  }
}

Result<fetch> describe_fetch(const ProbeOrder& order, const ProbeFetch& from) {
  if (from.step_count > max_fetch_steps || from.size > max_fetch_size ||
      from.base > fetch_of_task) {
    return too_much(order, "it reads too much");
  }
  fetch to{};
  to.what = from.what == ProbeFetch::What::value    ? fetch_value
            : from.what == ProbeFetch::What::string ? fetch_string
                                                    : fetch_bytes;
  static_assert(fetch_of_task == ProbeFetch::of_task);
  to.base = from.base == ProbeFetch::of_task ? __u8{fetch_of_task} : to_kvm[from.base];
  to.step_count = from.step_count;
  to.from_entry = from.from_entry;
  to.size = from.size;
  to.offset = from.offset;
  for (std::size_t i = 0; i < from.steps.size(); ++i) to.steps[i] = from.steps[i];
  return to;
}

Result<void> describe_fetches(const ProbeOrder& order, std::span<const ProbeFetch> from,
                              struct fetch* to) {
  if (from.size() > max_fetches) return too_much(order, "it has too many arguments");
  for (std::size_t i = 0; i < from.size(); ++i) {
    VMSIGHT_TRY(to[i], describe_fetch(order, from[i]));
  }
  return {};
}

bool is_fetch(FilterTerm::Field field) {
  return field == FilterTerm::Field::fetch || field == FilterTerm::Field::fetch_return;
}

/// A comparison by words: `mask` says which bytes count. Of a name the NUL does too; texts have a size.
Result<void> describe_text(const ProbeOrder& order, const FilterTerm& from, term& to) {
  const bool is_name = from.field == FilterTerm::Field::comm;
  const std::size_t room = is_name ? sizeof(event::comm) : sizeof(to.text);
  std::string text = *from.text;
  if (text.size() + 1 > room || text.find('\0') != text.npos) {
    return too_much(order, fmt::format("a filter's text has at most {} characters", room - 1));
  }
  to.text_size = static_cast<__u8>(text.size());
  if (is_name) text += '\0';
  std::memcpy(to.text, text.data(), text.size());
  std::memset(to.mask, 0xff, text.size());
  to.is_text = 1;
  return {};
}

Result<term> describe_term(const ProbeOrder& order, const FilterTerm& from) {
  static_assert(term_duration == static_cast<int>(FilterTerm::Field::duration));
  static_assert(term_greater_equal == static_cast<int>(FilterTerm::Compare::greater_equal));
  term to{};
  to.field = static_cast<__u8>(from.field);
  to.compare = static_cast<__u8>(from.compare);
  to.bits = static_cast<__u8>(std::clamp<unsigned>(from.bits, 1, 64));
  to.is_signed = from.may_be_int  ? signed_by_size
                 : from.is_signed ? signed_number
                                  : unsigned_number;
  to.number = from.number;
  if (is_fetch(from.field)) {
    if (from.index >= max_fetches)
      return too_much(order, "its filter asks for too late an argument");
    to.index = static_cast<__u8>(from.index);
  }
  if (from.again && *from.again < max_fetches) to.again = static_cast<__u8>(*from.again + 1);
  if (from.text) VMSIGHT_TRY_VOID(describe_text(order, from, to));
  return to;
}

Result<void> describe_filter(const ProbeOrder& order, probe& to) {
  const ProbeFilter& filter = order.filter;
  if (filter.terms.size() > max_terms || filter.steps.size() > max_filter_steps) {
    return too_much(order,
                    fmt::format("its filter has more than {} terms", static_cast<int>(max_terms)));
  }
  for (std::size_t i = 0; i < filter.terms.size(); ++i) {
    VMSIGHT_TRY(to.term[i], describe_term(order, filter.terms[i]));
  }
  for (std::size_t i = 0; i < filter.steps.size(); ++i) {
    static_assert(step_negate == static_cast<int>(FilterStep::Kind::negate));
    to.step[i] = {static_cast<__u8>(filter.steps[i].kind), static_cast<__u8>(filter.steps[i].term)};
  }
  to.steps = static_cast<__u32>(filter.steps.size());
  return {};
}

bool reads_user_memory_or_task(const ProbeOrder& order) {
  const auto& terms = order.filter.terms;
  return !order.counts_only || order.site.at_return ||
         std::any_of(terms.begin(), terms.end(), [](const FilterTerm& term) {
           return term.field != FilterTerm::Field::cpu && term.field != FilterTerm::Field::duration;
         });
}

/// Of a return probe: who it was at the entry is told, or asked for.
bool keeps_caller(const ProbeOrder& order) {
  const auto& terms = order.filter.terms;
  return order.site.at_return &&
         (!order.counts_only || std::any_of(terms.begin(), terms.end(), [](const FilterTerm& term) {
           return term.field <= FilterTerm::Field::comm;
         }));
}

/// At most so many bytes are kept of an entry.
std::size_t entry_data(const ProbeOrder& order) {
  std::size_t size = 0;
  for (const ProbeFetch& fetch : order.fetches) {
    size += sizeof(fetched);
    if (fetch.what != ProbeFetch::What::value)
      size += (fetch.size + std::size_t{7}) & ~std::size_t{7};
  }
  return size;
}

/// Takes what is known of one fetch off the bytes.
Result<Fetched> take_fetched(std::span<const std::byte>& bytes) {
  const Error cut{.code = ErrorCode::bad_data, .message = "an event is cut short"};
  fetched head;
  if (bytes.size() < sizeof(head)) return cut;
  std::memcpy(&head, bytes.data(), sizeof(head));
  bytes = bytes.subspan(sizeof(head));
  const std::size_t padded = (head.size + std::size_t{7}) & ~std::size_t{7};
  if (bytes.size() < padded) return cut;
  Fetched taken{.ok = (head.ok & fetched_all) != 0,
                .has_value = (head.ok & fetched_value) != 0,
                .cut = head.cut != 0,
                .value = head.value};
  taken.bytes.assign(reinterpret_cast<const char*>(bytes.data()), head.size);
  bytes = bytes.subspan(padded);
  return taken;
}

/// Those for which there was no room are not known.
Result<void> take_all(std::span<const std::byte>& bytes, std::size_t count,
                      std::vector<Fetched>& into) {
  into.clear();
  for (std::size_t i = 0; i < count; ++i) {
    if (bytes.empty()) {
      into.resize(count);
      break;
    }
    VMSIGHT_TRY(Fetched one, take_fetched(bytes));
    into.push_back(std::move(one));
  }
  return {};
}

void read_registers(const event& event, ProbeRegisters& registers) {
  registers = {};
  for (unsigned i = 0; i < to_kvm.size(); ++i) {
    registers.general[i] = event.registers[to_kvm[i]];
    registers.known |= (event.known >> to_kvm[i] & 1) << i;
  }
  registers.cr3 = event.cr3;
  if ((event.known >> 16 & 1) != 0) registers.known |= 1u << reg::cr3;
}

}  // namespace

Result<guest> describe_guest(const Vm& vm, Kernel& kernel, GuestMemory& memory) {
  guest guest{};
  Members members(kernel);
  guest.tgid = static_cast<__u32>(vm.info().pid);
  guest.pid_offset = members.offset("task_struct", "pid");
  guest.tgid_offset = members.offset("task_struct", "tgid");
  guest.comm_offset = members.offset("task_struct", "comm");
  guest.mm_offset = members.offset("task_struct", "mm");
  guest.pgd_offset = members.offset("mm_struct", "pgd");
  const GuestVirt current = current_task_variable(members);
  VMSIGHT_TRY_VOID(members.check());
  VMSIGHT_TRY_VOID(describe_ram(vm, guest));
  guest.direct_map = to_window(kernel.space().direct_map());
  guest.image = to_window(kernel.space().image());
  guest.root = kernel.space().root().raw();
  guest.five_level = kernel.space().levels() == 5;
  Reader reader(memory, kernel.space());
  describe_current(vm, kernel, reader, current, guest);
  return guest;
}

bool filters_early(const ProbeOrder& order) {
  const auto& terms = order.filter.terms;
  return !order.filter.steps.empty() && !filters_at_return(order) &&
         std::all_of(terms.begin(), terms.end(), [](const FilterTerm& term) {
           return term.field == FilterTerm::Field::pid || term.field == FilterTerm::Field::tgid ||
                  term.field == FilterTerm::Field::comm || term.field == FilterTerm::Field::cpu;
         });
}

Result<probe> describe_probe(const ProbeOrder& order) {
  probe to{};
  to.id = order.id;
  to.rate_limit = order.rate_limit;
  if (order.site.user && !order.site.any_process && !order.site.places.empty()) {
    to.tgid = order.site.places.front().tgid;
  }
  if (order.site.at_return) to.flags |= probe_at_return;
  if (order.counts_only) to.flags |= probe_counts_only;
  if (reads_user_memory_or_task(order)) to.flags |= probe_needs_task;
  if (filters_at_return(order)) to.flags |= probe_filter_late;
  if (keeps_caller(order)) to.flags |= probe_keeps_caller;
  if (filters_early(order)) to.flags |= probe_filter_early;
  to.fetches = static_cast<__u32>(order.fetches.size());
  to.fetches_return = static_cast<__u32>(order.fetches_return.size());
  VMSIGHT_TRY_VOID(describe_fetches(order, order.fetches, to.fetch));
  VMSIGHT_TRY_VOID(describe_fetches(order, order.fetches_return, to.fetch + max_fetches));
  VMSIGHT_TRY_VOID(describe_filter(order, to));
  // Without anybody to tell, only what the filter asks for is read.
  if (order.counts_only && order.filter.steps.empty()) to.fetches = to.fetches_return = 0;
  if (to.fetches != 0 && entry_data(order) > max_entry_data) to.flags |= probe_long;
  const bool filters_later = to.steps != 0 && (to.flags & probe_filter_early) == 0;
  if (to.fetches == 0 && to.fetches_return == 0 && !filters_later) to.flags |= probe_plain;
  return to;
}

Result<void> read_event(std::span<const std::byte> bytes, const ProbeSite& site, Hit& hit) {
  event event;
  if (bytes.size() < sizeof(event)) {
    return Error{.code = ErrorCode::bad_data, .message = "an event is cut short"};
  }
  std::memcpy(&event, bytes.data(), sizeof(event));
  bytes = bytes.subspan(sizeof(event));
  if (event.size > bytes.size()) {
    return Error{.code = ErrorCode::bad_data, .message = "an event is cut short"};
  }
  bytes = bytes.first(event.size);
  hit.probe = event.probe;
  hit.at_return = event.at_return != 0;
  hit.time_ns = event.time;
  hit.duration_ns = event.duration;
  hit.vcpu = event.vcpu;
  read_registers(event, hit.registers);
  hit.registers.rip =
      (event.known & rip_in_rax) != 0 ? event.registers[kvm_rax] : site.address.raw();
  hit.registers.known |= 1u << reg::rip;
  hit.task = {.task = GuestVirt(event.task), .pid = event.pid, .tgid = event.tgid};
  std::memcpy(hit.task.comm.data(), event.comm, hit.task.comm.size());
  hit.task.comm.back() = '\0';
  VMSIGHT_TRY_VOID(take_all(bytes, event.entry_fetches, hit.fetched));
  return take_all(bytes, event.return_fetches, hit.fetched_return);
}

}  // namespace vmsight::kvm
