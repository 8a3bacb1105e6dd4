#include "view/agent_reads.h"

#include <algorithm>
#include <cstring>

#include "agent/guest_agent.h"
#include "agent/vmsight_agent.h"
#include "qemu/monitor_session.h"
#include "view/cached_memory.h"
#include "view/ram_pieces.h"
#include "view/techniques_of_qemu.h"

namespace vmsight {
namespace {

/// A run more costs the guest a system call (or two JSON commands), a KiB more some microseconds.
constexpr std::uint64_t worthwhile_gap = 1024;

}  // namespace

Result<void> AgentReads::ask(Runs runs) {
  auto done = agent_->read(runs);
  if (done) return done;
  return explain_failure(vm_, std::move(done).error());
}

/// What there is of a run of RAM, in the ranges that the guest's kernel shows.
std::vector<PhysRange> AgentReads::shown(GuestPhys from, std::uint64_t size) const {
  const std::vector<PhysRange>& all = agent_->ranges();
  std::vector<PhysRange> found;
  auto range = std::upper_bound(all.begin(), all.end(), from,
                                [](GuestPhys at, const auto& r) { return at < r.start + r.size; });
  for (; range != all.end() && range->start < from + size; ++range) {
    const GuestPhys start = std::max(from, range->start);
    found.push_back({start, std::min(from + size, range->start + range->size) - start});
  }
  return found;
}

Result<void> AgentReads::read(std::span<FreshRead> reads) {
  std::vector<FreshRead> there;
  std::vector<std::size_t> origin;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    reads[i].ok = false;
    const auto parts = shown(reads[i].from, reads[i].into.size());
    if (parts.size() != 1 || parts.front().size != reads[i].into.size()) continue;
    there.push_back(reads[i]);
    origin.push_back(i);
  }
  VMSIGHT_TRY_VOID(ask_planned(there, worthwhile_gap));
  for (std::size_t i = 0; i < there.size(); ++i) {
    // A run that crossed a hole ended there.
    if (!there[i].ok) VMSIGHT_TRY_VOID(ask_planned(std::span(there).subspan(i, 1), 0));
    reads[origin[i]].ok = there[i].ok;
  }
  return {};
}

Result<void> AgentReads::ask_planned(std::span<FreshRead> reads, std::uint64_t max_gap) {
  ReadPlan plan(reads, ram(), {.max_gap = max_gap, .max_size = agent_->max_run()});
  std::span<const ReadPlan::Run> left = plan.runs();
  std::vector<AgentMemory::Run> batch;
  while (!left.empty()) {
    std::size_t count = 0;
    std::uint64_t size = 0;
    while (count < left.size() && (count == 0 || size + left[count].size <= agent_->max_batch())) {
      size += left[count++].size;
    }
    bytes_.resize(std::max<std::size_t>(bytes_.size(), size));
    batch.clear();
    std::span<std::byte> room(bytes_);
    for (const ReadPlan::Run& run : left.first(count)) {
      batch.push_back({run.start, room.first(run.size)});
      room = room.subspan(run.size);
    }
    VMSIGHT_TRY_VOID(ask(batch));
    for (std::size_t i = 0; i < count; ++i)
      plan.deliver(left[i], batch[i].into.first(batch[i].got));
    left = left.subspan(count);
  }
  return {};
}

/// RAM that both QEMU and the guest's kernel know.
Result<std::vector<PhysRange>> AgentReads::populated() {
  std::vector<PhysRange> all;
  for (const RamRange& range : ram().ranges()) {
    const auto parts = shown(range.start, range.size);
    all.insert(all.end(), parts.begin(), parts.end());
  }
  return all;
}

Result<void> AgentReads::scan(GuestPhys from, std::span<std::byte> into) {
  return for_each_ram_piece(ram(), from, into, agent_->max_batch(),
                            [&](const RamRange&, GuestPhys at, std::span<std::byte> piece) {
                              return scan_piece(at, piece);
                            });
}

Result<void> AgentReads::scan_piece(GuestPhys from, std::span<std::byte> piece) {
  std::memset(piece.data(), 0, piece.size());  // as populated() says of what is not shown
  std::vector<AgentMemory::Run> batch;
  for (const PhysRange& part : shown(from, piece.size())) {
    for (std::uint64_t done = 0; done < part.size; done += agent_->max_run()) {
      const std::uint64_t size = std::min<std::uint64_t>(part.size - done, agent_->max_run());
      batch.push_back({part.start + done, piece.subspan(part.start + done - from, size)});
    }
  }
  return ask(batch);
}

namespace {

Result<std::unique_ptr<GuestMemory>> open_agent(const Vm& vm, std::string_view technique,
                                                std::unique_ptr<AgentMemory> agent) {
  if (vm.ram().ranges().empty()) {
    return Error{.code = ErrorCode::unsupported, .message = "read guest RAM: its place is unknown"};
  }
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> memory,
              CachedMemory::make(std::make_unique<AgentReads>(vm, std::move(agent), technique)));
  return memory;
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_vmsight_agent(const Vm& vm) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  auto agent = VmsightAgent::open(vm.info());
  if (!agent) return explain_failure(vm, std::move(agent).error());
  return open_agent(vm, "agent:vmsight", *std::move(agent));
}

Result<std::unique_ptr<GuestMemory>> open_guest_agent(const Vm& vm) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  auto agent = GuestAgentMemory::open(vm.info());
  if (!agent) return explain_failure(vm, std::move(agent).error());
  return open_agent(vm, "agent:qga", *std::move(agent));
}

}  // namespace vmsight
