// How fast is a whole state, beside the least that any tool must do: copying the pages it touches?
//
//   state_bench VM [--technique live-map|live-read] [--rounds 5] [--seconds 1] [--json]
//
// One round reads whole states for a while, then copies the same pages for a while: by memcpy
// from the mapping, or by process_vm_readv in batches of IOV_MAX. Both run in the same process on
// the same core, so their ratio survives a noisy machine. The best round counts.
#include <sys/uio.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <climits>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "must.h"
#include "recording_memory.h"
#include "vmsight/guest.h"
#include "vmsight/state.h"
#include "vmsight/view.h"

using namespace vmsight;
using vmsight::bench::must;
using vmsight::bench::RecordingMemory;
using Clock = std::chrono::steady_clock;

namespace {

/// Runs `once` for about `seconds`; the mean time of one call, in microseconds.
double mean_us(double seconds, const std::function<void()>& once) {
  const auto start = Clock::now();
  const auto end = start + std::chrono::duration<double>(seconds);
  unsigned calls = 0;
  auto now = start;
  while (now < end) {
    once();
    ++calls;
    now = Clock::now();
  }
  return std::chrono::duration<double, std::micro>(now - start).count() / calls;
}

/// Copies the pages out of our own mapping of the guest.
void copy_mapped(const std::vector<const std::byte*>& pages, std::vector<std::byte>& into) {
  for (std::size_t i = 0; i < pages.size(); ++i) {
    std::memcpy(into.data() + i * page_size, pages[i], page_size);
  }
}

/// Copies the pages by process_vm_readv, IOV_MAX at a time, adjacent pages in one element.
void copy_by_reads(pid_t pid, const std::vector<iovec>& remote, std::vector<std::byte>& into) {
  std::size_t offset = 0;
  for (std::size_t i = 0; i < remote.size(); i += IOV_MAX) {
    const std::size_t count = std::min<std::size_t>(IOV_MAX, remote.size() - i);
    std::size_t length = 0;
    for (std::size_t k = i; k < i + count; ++k) length += remote[k].iov_len;
    iovec local{into.data() + offset, length};
    if (process_vm_readv(pid, &local, 1, &remote[i], count, 0) != static_cast<ssize_t>(length)) {
      bench::give_up("short process_vm_readv");
    }
    offset += length;
  }
}

std::vector<iovec> host_ranges(const RamMap& ram, const std::vector<GuestPhys>& pages) {
  std::vector<iovec> ranges;
  for (GuestPhys page : pages) {
    const RamRange* range = ram.find(page);
    auto* host = reinterpret_cast<std::byte*>((range->host + (page - range->start)).raw());
    if (!ranges.empty() &&
        static_cast<std::byte*>(ranges.back().iov_base) + ranges.back().iov_len == host) {
      ranges.back().iov_len += page_size;
    } else {
      ranges.push_back({host, page_size});
    }
  }
  return ranges;
}

/// Anonymous memory of this process, in KiB (RssAnon of /proc/self/status).
std::uint64_t own_anonymous_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures whole states against copying the pages they touch");
  std::string spec, technique = "auto";
  unsigned rounds = 5;
  double seconds = 1;
  bool json = false;
  app.add_option("VM", spec)->required();
  app.add_option("--technique", technique);
  app.add_option("--rounds", rounds);
  app.add_option("--seconds", seconds);
  app.add_flag("--json", json);
  CLI11_PARSE(app, argc, argv);

  must(survive_lost_memory());
  Guest guest = must(attach(spec, {.technique = technique}));
  GuestMemory& memory = *guest.memory;
  auto reader = must(StateReader::create(*guest.kernel, memory));
  State state;
  StateOptions options;
  for (int i = 0; i < 3; ++i) must(reader->read(options, state));  // learn the pages

  std::vector<GuestPhys> pages;
  {
    RecordingMemory recording(memory);
    auto recorded = must(StateReader::create(*guest.kernel, recording));
    State scratch;
    must(recorded->read(options, scratch));
    pages = recording.touched();
  }
  std::vector<std::byte> buffer(pages.size() * page_size);
  const std::vector<iovec> remote = host_ranges(memory.ram(), pages);
  const bool mapped = memory.nature().direct;
  std::vector<const std::byte*> pointers;
  if (mapped) {
    for (GuestPhys page : pages) pointers.push_back(memory.page(page));
  }

  double best_state = 1e300, best_copy = 1e300, best_ratio = 1e300;
  for (unsigned round = 0; round < rounds; ++round) {
    const double state_us = mean_us(seconds, [&] { must(reader->read(options, state)); });
    const double copy_us = mean_us(seconds / 4, [&] {
      mapped ? copy_mapped(pointers, buffer) : copy_by_reads(guest.vm->info().pid, remote, buffer);
    });
    best_state = std::min(best_state, state_us);
    best_copy = std::min(best_copy, copy_us);
    best_ratio = std::min(best_ratio, state_us / copy_us);
  }

  nlohmann::ordered_json result = {
      {"technique", std::string(memory.technique())},
      {"processes", state.processes.size()},
      {"open_files", state.open_files.size()},
      {"sockets", state.sockets.size()},
      {"memory_maps", state.memory_maps.size()},
      {"log_records", state.kernel_log.size()},
      {"problems", state.problems.size()},
      {"pages", pages.size()},
      {"state_us", best_state},
      {"states_per_second", 1e6 / best_state},
      {"copy_us", best_copy},
      {"ratio_to_copy", best_ratio},
      {"own_anonymous_kib", own_anonymous_kib()},
  };
  if (json) {
    fmt::print("{}\n", result.dump());
  } else {
    for (const auto& [key, value] : result.items()) fmt::print("{:<20} {}\n", key, value.dump());
  }
  return 0;
}
