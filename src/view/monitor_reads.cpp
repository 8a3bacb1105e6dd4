#include "view/monitor_reads.h"

#include <algorithm>
#include <cerrno>

#include "qemu/monitor_text.h"
#include "view/cached_memory.h"
#include "view/ram_pieces.h"
#include "view/techniques_of_qemu.h"

namespace vmsight {
namespace {

// A command costs QEMU 300-700 us, a page some 5 us by pmemsave and 300 us as text (measured with
// QEMU 7.2): a gap of many pages is worth saving along, one of a few words worth printing.
constexpr ReadPlan::Limits save_limits{.max_gap = 32 * page_size, .max_size = 1 << 20};
constexpr ReadPlan::Limits xp_limits{.max_gap = 256, .max_size = 16 * page_size, .unit = 8};
constexpr std::size_t batch = 64;  // commands in one write
constexpr std::size_t scan_piece = 64u << 20;

/// QEMU needs about 2 ms to save a MiB; a busy host may need fifty times as much.
MonitorSession::Milliseconds patience_for(std::uint64_t bytes) {
  return QmpClient::command_time + std::chrono::milliseconds((bytes >> 20) * 100);
}

Result<void> read_file(int fd, std::span<std::byte> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, "read what QEMU saved");
    if (got == 0) {
      return Error{.code = ErrorCode::bad_data,
                   .message = fmt::format("read what QEMU saved: {} of {} bytes are there", done,
                                          into.size())};
    }
    done += static_cast<std::size_t>(got);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<MonitorReads>> MonitorReads::open(const Vm& vm, Way way) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  if (vm.ram().ranges().empty()) {
    return Error{.code = ErrorCode::unsupported, .message = "read guest RAM: its place is unknown"};
  }
  std::unique_ptr<MonitorReads> source(new MonitorReads(vm, way));
  VMSIGHT_TRY(source->session_, MonitorSession::of(vm.info()));
  VMSIGHT_TRY(source->resets_, source->session_->resets());
  auto files = SaveFiles::make(source->session_, vm);
  if (files) {
    source->files_ = *std::move(files);
  } else if (way == Way::pmemsave) {
    return std::move(files).error();
  }
  return source;
}

std::string_view MonitorReads::technique() const {
  return way_ == Way::xp ? "live-interface:xp" : "live-interface:pmemsave";
}

Result<std::vector<nlohmann::json>> MonitorReads::ask(std::span<const QmpClient::Command> commands,
                                                      std::uint64_t bytes) {
  calls_ += commands.size();
  auto answers = session_->execute_all(commands, patience_for(bytes));
  if (!answers) return explain(std::move(answers).error());
  return answers;
}

Result<void> MonitorReads::read(std::span<FreshRead> reads) {
  ReadPlan plan(reads, ram(), way_ == Way::xp ? xp_limits : save_limits);
  std::span<const ReadPlan::Run> left = plan.runs();
  while (!left.empty()) {
    const auto some = left.first(std::min(left.size(), batch));
    VMSIGHT_TRY_VOID(way_ == Way::xp ? read_by_xp(plan, some) : read_by_saving(plan, some));
    left = left.subspan(some.size());
  }
  return {};
}

Result<void> MonitorReads::read_by_xp(ReadPlan& plan, std::span<const ReadPlan::Run> runs) {
  std::vector<QmpClient::Command> commands;
  std::uint64_t bytes = 0;
  for (const ReadPlan::Run& run : runs) {
    bytes += 4 * run.size;  // as text
    commands.push_back(
        QmpClient::human(fmt::format("xp /{}gx {:#x}", run.size / 8, run.start.raw())));
  }
  VMSIGHT_TRY(const auto answers, ask(commands, bytes));
  for (std::size_t i = 0; i < runs.size(); ++i) {
    bytes_.resize(runs[i].size);
    VMSIGHT_TRY(const std::string text, human_text(answers[i]));
    // What QEMU cannot read is said in words: then the page is unreadable, not the monitor.
    if (parse_xp(text, runs[i].start, bytes_)) plan.deliver(runs[i], bytes_);
  }
  return {};
}

Result<void> MonitorReads::read_by_saving(ReadPlan& plan, std::span<const ReadPlan::Run> runs) {
  while (saved_.size() < runs.size()) {
    VMSIGHT_TRY(SaveFile file, files_->in_memory());
    saved_.push_back(std::move(file));
  }
  std::vector<QmpClient::Command> commands;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    bytes += runs[i].size;
    commands.push_back(save_command(runs[i].start, runs[i].size, saved_[i]));
  }
  VMSIGHT_TRY(const auto answers, ask(commands, bytes));
  for (std::size_t i = 0; i < runs.size(); ++i) {
    bytes_.resize(runs[i].size);
    VMSIGHT_TRY_VOID(read_file(saved_[i].fd(), bytes_));
    plan.deliver(runs[i], bytes_);
  }
  return {};
}

Result<void> MonitorReads::health() {
  VMSIGHT_TRY_VOID(vm_.check_alive());
  const auto resets = session_->resets();
  if (!resets) return explain(resets.error());
  if (std::exchange(resets_, *resets) == *resets) return {};
  return Error{.code = ErrorCode::vm_gone,
               .message = "the guest was reset",
               .hint = "attach again when it is up"};
}

Result<std::vector<PhysRange>> MonitorReads::populated() {
  std::vector<PhysRange> all;
  for (const RamRange& range : ram().ranges()) all.push_back({range.start, range.size});
  return all;
}

Result<void> MonitorReads::scan(GuestPhys from, std::span<std::byte> into) {
  return for_each_ram_piece(
      ram(), from, into, scan_piece,
      [&](const RamRange&, GuestPhys at, std::span<std::byte> piece) { return copy(at, piece); });
}

/// A long run is saved whatever the way of pages is: as text it would take a minute for 512 MiB.
Result<void> MonitorReads::copy(GuestPhys from, std::span<std::byte> into) {
  if (files_) {
    VMSIGHT_TRY(const SaveFile file, files_->in_memory());
    const QmpClient::Command command = save_command(from, into.size(), file);
    VMSIGHT_TRY(const auto done, ask(std::span(&command, 1), into.size()));
    static_cast<void>(done);
    return read_file(file.fd(), into);
  }
  std::vector<FreshRead> reads;
  for (std::size_t done = 0; done < into.size();) {
    const GuestPhys at = from + done;
    const std::size_t size =
        std::min<std::uint64_t>(page_size - at.page_offset(), into.size() - done);
    reads.push_back({.from = at, .into = into.subspan(done, size)});
    done += size;
  }
  VMSIGHT_TRY_VOID(read(reads));
  const auto bad = std::find_if(reads.begin(), reads.end(), [](const auto& r) { return !r.ok; });
  if (bad == reads.end()) return {};
  return Error{.code = ErrorCode::fault,
               .message = fmt::format("read {}: the monitor does not show it", bad->from),
               .address = bad->from.raw()};
}

namespace {

Result<std::unique_ptr<GuestMemory>> open_monitor_view(const Vm& vm, MonitorReads::Way way) {
  VMSIGHT_TRY(std::unique_ptr<PageSource> source, MonitorReads::open(vm, way));
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> memory, CachedMemory::make(std::move(source)));
  return memory;
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_monitor_pmemsave(const Vm& vm) {
  return open_monitor_view(vm, MonitorReads::Way::pmemsave);
}

Result<std::unique_ptr<GuestMemory>> open_monitor_xp(const Vm& vm) {
  return open_monitor_view(vm, MonitorReads::Way::xp);
}

}  // namespace vmsight
