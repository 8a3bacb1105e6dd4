#include "probe/gdb_loop.h"

#include <fmt/format.h>
#include <algorithm>
#include <bit>
#include <cstring>

#include "kernel/architecture.h"

namespace vmsight {
namespace {

constexpr std::size_t max_calls = 1u << 14;  // under way at once; beyond, returns are missed
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr GdbClient::Milliseconds step_time{5000};

/// Where an order's instruction is, in each address space.
std::vector<std::uint64_t> addresses_of(const ProbeSite& site) {
  if (!site.user) return {site.address.raw()};
  std::vector<std::uint64_t> addresses;
  for (const UserPlace& place : site.places) addresses.push_back(place.address.raw());
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

}  // namespace

/// What the instruction is, from the memory of one process that has it.
void GdbLoop::read_code(GdbTrap& trap, std::uint64_t address, const ProbeOrder& order) {
  std::uint64_t root = 0;
  for (const UserPlace& place : order.site.places) {
    if (place.address.raw() == address) root = place.root.raw();
  }
  HitMemory memory(reader_, root);
  trap.nop = 0;
  if (memory.read(address, trap.code))
    trap.nop = architecture_.nop_length(trap.code, options_.skips_endbr);
}

Result<void> GdbLoop::arm(GdbClient& client, std::span<const ProbeOrder> orders) {
  // QEMU lets a client set a register only once it has asked what registers there are.
  VMSIGHT_TRY(const std::string description, client.ask("qXfer:features:read:target.xml:0,400"));
  sets_registers_ = description.starts_with('l') || description.starts_with('m');
  if (options_.refresh) VMSIGHT_TRY_VOID(reader_.memory().refresh());
  reader_.flush();
  std::vector<ProbeId> added;
  for (const ProbeOrder& order : orders) {
    for (const std::uint64_t address : addresses_of(order.site)) {
      GdbTrap& trap = traps_.at(address);
      if (!trap.inserted) read_code(trap, address, order);
      trap.entries.push_back(order.id);
    }
    armed_[order.id] = {.order = order, .counts = {}};
    added.push_back(order.id);
  }
  const std::size_t wanted = traps_.size();
  Error failure{.code = ErrorCode::unsupported,
                .message = fmt::format("arm {} places: this VM's CPUs have {} breakpoints", wanted,
                                       options_.max_traps),
                .hint = "under KVM the gdbstub uses the CPU's own breakpoints; arm fewer"};
  if (options_.max_traps == 0 || wanted <= options_.max_traps) {
    auto inserted = order_all(client, traps_.catch_up());
    if (inserted) return {};
    failure = std::move(inserted).error();
  }
  VMSIGHT_TRY_VOID(disarm(client, added));
  return failure;
}

Result<void> GdbLoop::disarm(GdbClient& client, std::span<const ProbeId> ids) {
  for (const ProbeId id : ids) {
    const auto at = armed_.find(id);
    if (at == armed_.end()) continue;
    for (auto& [address, trap] : traps_) std::erase(trap.entries, id);
    for (auto& [key, calls] : calls_) {
      std::erase_if(calls, [&](const Call& call) {
        if (call.probe != id) return false;
        forget_call(call);
        return true;
      });
    }
    past_[id] = at->second.counts;
    armed_.erase(at);
  }
  std::erase_if(calls_, [](const auto& entry) { return entry.second.empty(); });
  return order_all(client, traps_.catch_up());
}

Result<void> GdbLoop::disarm_all(GdbClient& client) {
  std::vector<ProbeId> ids;
  for (const auto& [id, probe] : armed_) ids.push_back(id);
  return disarm(client, ids);
}

bool GdbLoop::needs_stop(ProbeId id, std::span<const UserPlace> places) const {
  const auto at = armed_.find(id);
  if (at == armed_.end()) return false;
  ProbeSite next = at->second.order.site;
  next.places.assign(places.begin(), places.end());
  return addresses_of(next) != addresses_of(at->second.order.site);
}

Result<void> GdbLoop::set_places(GdbClient& client, ProbeId id, std::span<const UserPlace> places) {
  const auto at = armed_.find(id);
  if (at == armed_.end()) return {};
  const bool moves = needs_stop(id, places);
  ProbeOrder& order = at->second.order;
  order.site.places.assign(places.begin(), places.end());
  if (!moves) return {};
  reader_.flush();
  for (auto& [address, trap] : traps_) std::erase(trap.entries, id);
  for (const std::uint64_t address : addresses_of(order.site)) {
    GdbTrap& trap = traps_.at(address);
    if (!trap.inserted) read_code(trap, address, order);
    trap.entries.push_back(id);
  }
  return order_all(client, traps_.catch_up());
}

/// One that is refused does not keep the others from being told.
Result<void> GdbLoop::order_all(GdbClient& client, std::span<const std::string> orders) {
  constexpr std::size_t batch = 64;
  Result<void> done;
  while (!orders.empty()) {
    const auto some = orders.first(std::min(batch, orders.size()));
    VMSIGHT_TRY(const auto answers, client.ask_all(some));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (answers[i] == "OK" || !done || some[i].starts_with('z')) continue;
      done = Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("arm a breakpoint: QEMU refuses {} with \"{}\"", some[i],
                                          answers[i].substr(0, 40))};
    }
    orders = orders.subspan(some.size());
  }
  return done;
}

Result<ProbeCounts> GdbLoop::counts(ProbeId id) const {
  if (const auto at = armed_.find(id); at != armed_.end()) return at->second.counts;
  if (const auto at = past_.find(id); at != past_.end()) return at->second;
  return Error{.code = ErrorCode::not_found, .message = fmt::format("no probe has number {}", id)};
}

Result<GdbLoop::After> GdbLoop::handle(GdbClient& client, const GdbStop& stop,
                                       const ProbeEngine::Sink& sink, std::size_t& told) {
  if (stop.ended) return Error{.code = ErrorCode::vm_gone, .message = "the VM has ended"};
  if (stop.signal != GdbStop::trap || !stop.vcpu) return After::stands;
  Moment moment{.time_ns = monotonic_ns(), .vcpu = *stop.vcpu, .gdb = {}, .who = {}};
  const std::string questions[] = {fmt::format("Hgp1.{:x}", moment.vcpu + 1), "g"};
  VMSIGHT_TRY(const auto answers, client.ask_all(questions));
  VMSIGHT_TRY(moment.gdb, parse_gdb_registers(answers[1]));
  if (options_.refresh) VMSIGHT_TRY_VOID(reader_.memory().refresh());
  reader_.flush();
  const ProbeRegisters& registers = moment.gdb.registers;
  moment.who = current_.find(reader_, registers.gs_base, moment.gdb.kernel_gs_base);
  HitMemory memory(reader_, registers.cr3);
  GdbTrap* trap = traps_.find(registers.rip);
  bool known = false;
  if (trap != nullptr) {
    known = on_return(moment, memory);
    const std::vector<ProbeId> entries = trap->entries;  // a call may add a trap
    for (const ProbeId id : entries) {
      Probe& probe = armed_.at(id);
      const bool own = is_of(probe.order, moment);
      if (own)
        on_entry(probe, moment, memory);
      else
        ++probe.counts.foreign;
      known = true;
    }
    // Another caller of a function that is not probed comes back to the same place.
    known = known || trap->returns != 0;
  }
  if (!known) ++foreign_;
  allow_refusal(moment, memory);
  deliver(true, sink, told);
  auto after = go_on(client, moment, memory);
  stood_ns_ += monotonic_ns() - moment.time_ns;
  if (after) deliver(false, sink, told);
  waiting_.clear();
  return after;
}

bool GdbLoop::is_of(const ProbeOrder& order, const Moment& moment) const {
  if (!order.site.user) return moment.gdb.cpl == 0;
  const std::uint64_t table = architecture_.root_of(moment.gdb.registers.cr3).raw();
  return std::any_of(order.site.places.begin(), order.site.places.end(),
                     [&](const UserPlace& place) {
                       if (place.address.raw() != moment.gdb.registers.rip) return false;
                       if (moment.who.mm.raw() != 0) return place.mm == moment.who.mm;
                       return place.root.raw() == table;
                     });
}

void GdbLoop::fetch(std::span<const ProbeFetch> wanted, const Moment& moment,
                    const ProbeRegisters& at_entry, HitMemory& memory,
                    std::vector<Fetched>& into) const {
  for (const ProbeFetch& one : wanted) {
    into.push_back(memory.fetch(one, moment.gdb.registers, at_entry, moment.who.task.task));
  }
}

void GdbLoop::on_entry(Probe& probe, const Moment& moment, HitMemory& memory) {
  const ProbeRegisters& registers = moment.gdb.registers;
  Hit hit{{.probe = probe.order.id,
           .time_ns = moment.time_ns,
           .vcpu = moment.vcpu,
           .registers = registers,
           .task = moment.who.task}};
  fetch(probe.order.fetches, moment, registers, memory, hit.fetched);
  const ProbeFilter& filter = probe.order.filter;
  const bool at_return = probe.order.site.at_return;
  const bool late = filters_at_return(probe.order) || (at_return && is_undecided(filter, hit));
  if (!late && !passes(filter, hit)) {  // so would its return be
    ++probe.counts.hits;
    ++probe.counts.filtered;
    return;
  }
  if (at_return) return expect_return(probe, moment, memory, std::move(hit));
  ++probe.counts.hits;
  tell(probe, std::move(hit));
}

void GdbLoop::expect_return(Probe& probe, const Moment& moment, HitMemory& memory, Hit hit) {
  ++probe.counts.missed_returns;
  const std::uint64_t stack = moment.gdb.registers.general[reg::rsp];
  const auto back = memory.u64(stack);
  if (!back || moment.who.task.task.raw() == 0 || call_count_ >= max_calls) return;
  auto& calls = calls_[{moment.who.task.task.raw(), stack}];
  // A call that never came back left its place on the stack to this one.
  std::erase_if(calls, [&](const Call& old) {
    if (old.probe != probe.order.id && old.return_address == *back) return false;
    forget_call(old);
    return true;
  });
  calls.push_back({.probe = probe.order.id,
                   .return_address = *back,
                   .time_ns = moment.time_ns,
                   .stood_ns = stood_ns_,
                   .registers = moment.gdb.registers,
                   .task = moment.who.task,
                   .fetched = std::move(hit.fetched)});
  calls.back().undecided = is_undecided(probe.order.filter, {{}, calls.back().fetched});
  ++call_count_;
  GdbTrap& trap = traps_.at(*back);
  if (!trap.inserted && trap.returns == 0 && memory.read(*back, trap.code)) {
    trap.nop = architecture_.nop_length(trap.code, options_.skips_endbr);
  }
  ++trap.returns;
}

/// Whether calls that are under way came back.
bool GdbLoop::on_return(const Moment& moment, HitMemory& memory) {
  const ProbeRegisters& registers = moment.gdb.registers;
  // The return has taken the return address off the stack.
  const auto at = calls_.find({moment.who.task.task.raw(), registers.general[reg::rsp] - 8});
  if (at == calls_.end() || at->second.front().return_address != registers.rip) return false;
  std::vector<Call> calls = std::move(at->second);
  calls_.erase(at);
  for (Call& call : calls) {
    forget_call(call);
    tell_return(call, moment, memory);
  }
  return true;
}

void GdbLoop::tell_return(Call& call, const Moment& moment, HitMemory& memory) {
  const auto found = armed_.find(call.probe);
  if (found == armed_.end()) return;
  Probe& probe = found->second;
  --probe.counts.missed_returns;
  ++probe.counts.hits;
  const ProbeRegisters& registers = moment.gdb.registers;
  Hit hit{{.probe = call.probe,
           .at_return = true,
           .time_ns = moment.time_ns,
           .duration_ns = moment.time_ns - call.time_ns - (stood_ns_ - call.stood_ns),
           .vcpu = moment.vcpu,
           .registers = registers,
           .task = call.task},
          std::move(call.fetched)};
  fetch(probe.order.fetches_return, moment, call.registers, memory, hit.fetched_return);
  const bool late = call.undecided || filters_at_return(probe.order);
  if (late && !passes(probe.order.filter, hit)) {
    ++probe.counts.filtered;
    return;
  }
  const unsigned bucket = std::bit_width(std::max<std::uint64_t>(hit.duration_ns, 1)) - 1;
  ++probe.counts.durations[bucket];
  tell(probe, std::move(hit));
}

void GdbLoop::forget_call(const Call& call) {
  --call_count_;
  GdbTrap* trap = traps_.find(call.return_address);
  if (trap != nullptr && trap->returns > 0) --trap->returns;
}

void GdbLoop::tell(Probe& probe, Hit hit) {
  if (probe.order.counts_only) return;
  if (probe.order.rate_limit != 0) {
    const std::uint64_t second = hit.time_ns / second_ns;
    if (std::exchange(probe.second, second) != second) probe.told_in_second = 0;
    if (probe.told_in_second++ >= probe.order.rate_limit) {
      ++probe.counts.rate_limited;
      return;
    }
  }
  ++probe.counts.told;
  waiting_.push_back({std::move(hit), probe.order.standing});
}

void GdbLoop::deliver(bool standing, const ProbeEngine::Sink& sink, std::size_t& told) {
  for (Waiting& one : waiting_) {
    if (one.standing != standing) continue;
    ++told;
    if (sink) sink(one.hit);
  }
}

bool GdbLoop::code_is_same(const GdbTrap& trap, HitMemory& memory, std::uint64_t address) const {
  std::array<std::byte, GdbTrap::code_size> now;
  const auto part = std::span(now).first(trap.nop);
  return memory.read(address, part) && std::memcmp(now.data(), trap.code.data(), trap.nop) == 0;
}

/// Those who are told while the guest stands, at the first instruction of a kernel function.
void GdbLoop::allow_refusal(Moment& moment, HitMemory& memory) {
  if (!sets_registers_ || moment.gdb.cpl != 0) return;
  for (Waiting& one : waiting_) {
    const ProbeSite& site = armed_.at(one.hit.probe).order.site;
    if (!one.standing || one.hit.at_return || site.user || site.offset != 0) continue;
    if (!moment.back) moment.back = memory.u64(moment.gdb.registers.general[reg::rsp]);
    one.hit.can_be_refused = moment.back.has_value();
  }
}

std::optional<std::int64_t> GdbLoop::refusal() const {
  for (const Waiting& one : waiting_) {
    if (one.hit.can_be_refused && one.hit.refusal) return one.hit.refusal;
  }
  return std::nullopt;
}

Result<GdbLoop::After> GdbLoop::go_on(GdbClient& client, const Moment& moment, HitMemory& memory) {
  const std::uint64_t rip = moment.gdb.registers.rip;
  if (const auto result = refusal(); result && moment.back) {
    std::vector<std::string> orders = traps_.catch_up();
    const std::uint64_t stack = moment.gdb.registers.general[reg::rsp];
    for (std::string& order :
         return_at_once(static_cast<std::uint64_t>(*result), stack, *moment.back))
      orders.push_back(std::move(order));
    VMSIGHT_TRY_VOID(run(client, std::move(orders)));
    return After::runs;
  }
  const GdbTrap* trap = traps_.find(rip);
  const bool stays = trap != nullptr && trap->is_needed();
  // The guest may have patched its code since: its own tracer turns these NOPs into calls.
  const bool skips = sets_registers_ && stays && trap->nop != 0 && code_is_same(*trap, memory, rip);
  if (stays && !skips) return step_and_go_on(client, moment);
  std::vector<std::string> orders = traps_.catch_up();
  if (skips) orders.push_back(set_rip(rip + trap->nop));
  VMSIGHT_TRY_VOID(run(client, std::move(orders)));
  return After::runs;
}

/// Only the vCPU that hit executes its instruction, while its breakpoint is out; the others stand,
/// so none of them gets past unseen.
Result<GdbLoop::After> GdbLoop::step_and_go_on(GdbClient& client, const Moment& moment) {
  const std::uint64_t rip = moment.gdb.registers.rip;
  const std::string removal[] = {traps_.remove_order(rip)};
  VMSIGHT_TRY_VOID(client.run(removal, fmt::format("vCont;s:p1.{:x}", moment.vcpu + 1)));
  VMSIGHT_TRY(const auto stop, client.wait_stop(step_time));
  if (!stop) {
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("step vCPU {}: it does not finish", moment.vcpu)};
  }
  traps_.at(rip).inserted = false;
  std::vector<std::string> orders = traps_.catch_up();
  if (stop->ended) return Error{.code = ErrorCode::vm_gone, .message = "the VM has ended"};
  if (stop->signal != GdbStop::trap) {  // somebody stopped the guest in the meantime
    VMSIGHT_TRY_VOID(order_all(client, orders));
    return After::stands;
  }
  VMSIGHT_TRY_VOID(run(client, std::move(orders)));
  return After::runs;
}

/// A CPU may have no breakpoint left for a return: that call is not seen to come back.
Result<void> GdbLoop::run(GdbClient& client, std::vector<std::string> orders) {
  if (options_.max_traps == 0) return client.run(orders);
  std::vector<std::string> last;
  for (std::string& order : orders) {
    if (order.starts_with('P')) {
      last.push_back(std::move(order));
      continue;
    }
    VMSIGHT_TRY(const std::string answer, client.ask(order));
    if (answer != "OK") traps_.refused(order);
  }
  return client.run(last);
}

}  // namespace vmsight
