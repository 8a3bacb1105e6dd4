#include "view/gdb_reads.h"

#include <algorithm>

#include "view/cached_memory.h"
#include "view/paused_memory.h"
#include "view/techniques_of_qemu.h"

namespace vmsight {
namespace {

/// Questions in one write. QEMU writes each answer before it reads on, so all of them together
/// should fit into a socket's buffer.
constexpr std::size_t batch_bytes = 64u << 10;

}  // namespace

Result<void> GdbReads::read(std::span<FreshRead> reads) {
  GdbClient* client = stub_.client();
  if (client == nullptr) return monitor_->read(reads);
  // Memory is asked for in pieces that the stub allows; a page may need two of them (QEMU 7.2).
  const std::size_t piece = std::min<std::size_t>(client->max_memory(), page_size);
  std::vector<FreshRead> pieces;
  std::vector<std::size_t> owner;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    for (std::size_t done = 0; done < reads[i].into.size(); done += piece) {
      const std::size_t size = std::min(piece, reads[i].into.size() - done);
      pieces.push_back({.from = reads[i].from + done, .into = reads[i].into.subspan(done, size)});
      owner.push_back(i);
    }
    reads[i].ok = true;
  }
  ReadPlan plan(pieces, ram(), {.max_gap = 128, .max_size = piece});
  std::span<const ReadPlan::Run> left = plan.runs();
  const std::size_t batch = std::max<std::size_t>(1, batch_bytes / (2 * piece));
  while (!left.empty()) {
    const auto some = left.first(std::min(left.size(), batch));
    VMSIGHT_TRY_VOID(ask(*client, plan, some));
    left = left.subspan(some.size());
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].ok) reads[owner[i]].ok = false;
  }
  return {};
}

Result<void> GdbReads::ask(GdbClient& client, ReadPlan& plan, std::span<const ReadPlan::Run> runs) {
  std::vector<std::string> questions;
  for (const ReadPlan::Run& run : runs) {
    questions.push_back(GdbClient::memory_question(run.start, run.size));
  }
  calls_ += questions.size();
  auto answers = client.ask_all(questions);
  if (!answers) return monitor_->explain(std::move(answers).error());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    bytes_.resize(runs[i].size);
    auto parsed = parse_memory((*answers)[i], bytes_);
    if (parsed) {
      plan.deliver(runs[i], bytes_);
    } else if (parsed.error().code != ErrorCode::fault) {
      return parsed;
    }
  }
  return {};
}

Result<std::unique_ptr<GuestMemory>> open_gdbstub(const Vm& vm,
                                                  std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(std::unique_ptr<MonitorReads> monitor,
              MonitorReads::open(vm, MonitorReads::Way::pmemsave));
  VMSIGHT_TRY(std::unique_ptr<GdbStub> stub, GdbStub::open(vm, GdbStub::Use::reads, max_halt));
  std::unique_ptr<PageSource> source = std::make_unique<GdbReads>(*stub, std::move(monitor));
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> access, CachedMemory::make(std::move(source)));
  return std::unique_ptr<GuestMemory>(
      std::make_unique<PausedMemory>("halt-interface:gdbstub", std::move(access), std::move(stub)));
}

}  // namespace vmsight
