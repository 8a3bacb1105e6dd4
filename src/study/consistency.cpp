#include "study/consistency.h"

#include <algorithm>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/clock.h"
#include "base/memory_decorator.h"
#include "vmsight/guest.h"

namespace vmsight {
namespace {

struct WayTraits {
  std::string_view name;
  TechniqueWish wish;
  bool proves_records = true, proves_states = false;
};

const std::array ways{
    WayTraits{.name = "naive", .wish = {}, .proves_records = false},
    WayTraits{.name = "live", .wish = {}},
    WayTraits{
        .name = "proven", .wish = {.consistent = true, .no_pause = true}, .proves_states = true},
    WayTraits{.name = "halted", .wish = {.consistent = true}},
    WayTraits{.name = "snapshot", .wish = {.consistent = true, .copy = true}},
};

constexpr unsigned parts = part_all | part_threads;

/// A task, as long as it is the same one.
using TaskKey = std::pair<std::int32_t, std::uint64_t>;

class Way {
 public:
  static Result<std::unique_ptr<Way>> open(const VmInfo& info, const WayTraits& traits,
                                           const std::string& cache_dir, WayOutcome& into) {
    std::unique_ptr<Way> way(new Way(into));
    VMSIGHT_TRY(way->guest_,
                attach(std::to_string(info.pid), {.wish = traits.wish,
                                                  .proves_states = traits.proves_states,
                                                  .cache_directory = cache_dir}));
    Guest& guest = way->guest_;
    if (traits.proves_records) {
      VMSIGHT_TRY(way->reader_, state_reader_of(guest));
    } else {
      way->naive_ = std::make_unique<AsIfHalted>(*guest.memory);
      VMSIGHT_TRY(way->reader_, StateReader::create(*guest.kernel, *way->naive_));
    }
    into.technique = guest.memory->technique();
    for (unsigned i = 0; i < warm_up; ++i) VMSIGHT_TRY_VOID(way->take(false));
    return way;
  }

  /// One view.
  Result<void> take(bool counts = true) {
    const Stopwatch watch;
    auto read = reader_->read({.parts = parts}, state_);
    if (!read && read.error().code == ErrorCode::timeout) {
      outcome_.failed += counts;  // a proof that did not hold, a halt that took too long
      return {};
    }
    VMSIGHT_TRY_VOID(std::move(read));
    if (counts) count(watch.elapsed_ns());
    return {};
  }

  void finish() {
    for (const auto& [key, seen] : lasting_)
      outcome_.lasted_ns.add(static_cast<double>(seen.last - seen.first));
    lasting_.clear();
  }

 private:
  static constexpr unsigned warm_up = 3;
  struct Seen {
    std::uint64_t first = 0, last = 0;
    Validity validity{};
  };

  explicit Way(WayOutcome& outcome) : outcome_(outcome) {}

  void count(std::uint64_t took_ns) {
    ++outcome_.views;
    outcome_.processes += state_.processes.size();
    outcome_.view_ns.add(static_cast<double>(took_ns));
    outcome_.pause_ns.add(static_cast<double>(state_.view.pause_ns));
    const Inconsistencies& met = state_.view.inconsistencies;
    const std::pair<const char*, std::uint64_t> classes[] = {{"list", met.list},
                                                             {"died", met.died},
                                                             {"recycled", met.recycled},
                                                             {"changed", met.changed},
                                                             {"unreadable", met.unreadable},
                                                             {"torn", met.torn}};
    for (const auto& [name, number] : classes) outcome_.extrinsic[name].add(number);
    count_validity();
    for (const auto& [name, number] : contradictions_of(state_))
      outcome_.contradictions[name].add(number);
  }

  void count_validity() {
    std::map<Validity, std::uint64_t> numbers{{Validity::fresh, 0},
                                              {Validity::zombie, 0},
                                              {Validity::dying, 0},
                                              {Validity::as_good_as_dead, 0}};
    for (const Process& process : state_.processes) {
      const auto it = numbers.find(process.validity);
      if (it == numbers.end()) continue;
      ++it->second;
      note_lasting(process);
    }
    for (const auto& [validity, number] : numbers)
      outcome_.intrinsic[std::string(to_string(validity))].add(number);
    forget_ended();
  }

  void note_lasting(const Process& process) {
    const std::uint64_t now = state_.view.start_ns;
    const auto [it, fresh] = lasting_.try_emplace({process.pid, process.start_time_ns},
                                                  Seen{now, now, process.validity});
    if (!fresh && it->second.validity == process.validity) it->second.last = now;
  }

  /// Those that this view no longer has are over. Some never end: a parent that does not wait.
  void forget_ended() {
    for (auto it = lasting_.begin(); it != lasting_.end();) {
      if (it->second.last == state_.view.start_ns) {
        ++it;
        continue;
      }
      outcome_.lasted_ns.add(static_cast<double>(it->second.last - it->second.first));
      it = lasting_.erase(it);
    }
  }

  WayOutcome& outcome_;
  Guest guest_;
  std::unique_ptr<AsIfHalted> naive_;
  std::unique_ptr<StateReader> reader_;
  State state_;
  std::map<TaskKey, Seen> lasting_;
};

void give_up(WayOutcome& outcome, std::unique_ptr<Way>& way, const Error& error) {
  outcome.error = error.message;
  outcome.hint = error.hint;
  way.reset();
}

}  // namespace

std::map<std::string, std::uint64_t, std::less<>> contradictions_of(const State& state) {
  std::map<std::string, std::uint64_t, std::less<>> found{
      {"process without its parent", 0},
      {"thread without its process", 0},
      {"threads other than their process counts", 0},
      {"file without its process", 0},
      {"map without its process", 0},
      {"socket without its process", 0},
      {"number that two processes have", 0}};
  std::unordered_map<std::int32_t, std::uint32_t> threads;  // by process
  for (const Process& process : state.processes)
    found["number that two processes have"] += !threads.try_emplace(process.tgid, 0).second;
  const auto is_there = [&](std::int32_t pid) { return threads.contains(pid); };
  for (const Thread& thread : state.threads) {
    if (is_there(thread.tgid))
      ++threads[thread.tgid];
    else
      ++found["thread without its process"];
  }
  for (const Process& process : state.processes) {
    found["process without its parent"] += process.ppid != 0 && !is_there(process.ppid);
    const bool differs = process.threads && *process.threads != threads[process.tgid];
    found["threads other than their process counts"] +=
        process.validity == Validity::live && differs;
  }
  for (const OpenFile& file : state.open_files)
    found["file without its process"] += !is_there(file.pid);
  for (const MemoryMap& map : state.memory_maps)
    found["map without its process"] += !is_there(map.pid);
  for (const Socket& socket : state.sockets)
    found["socket without its process"] += socket.pid && !is_there(*socket.pid);
  return found;
}

std::vector<WayOutcome> study_consistency(const VmInfo& info,
                                          const ConsistencyStudyOptions& options) {
  constexpr std::uint64_t turn = 25;  // views of one way before those of the next
  std::vector<WayOutcome> outcomes(ways.size());
  std::vector<std::unique_ptr<Way>> opened(ways.size());
  for (std::size_t i = 0; i < ways.size(); ++i) {
    outcomes[i].way = ways[i].name;
    auto way = Way::open(info, ways[i], options.cache_dir, outcomes[i]);
    if (way)
      opened[i] = *std::move(way);
    else
      give_up(outcomes[i], opened[i], way.error());
  }
  for (std::uint64_t done = 0; done < options.views; done += turn) {
    if (options.progress)
      options.progress(fmt::format("{} of {} views of each way", done, options.views));
    for (std::size_t i = 0; i < ways.size(); ++i) {
      for (std::uint64_t view = done; opened[i] && view < std::min(done + turn, options.views);
           ++view) {
        if (auto taken = opened[i]->take(); !taken) give_up(outcomes[i], opened[i], taken.error());
      }
      if (opened[i]) opened[i]->finish();
    }
  }
  return outcomes;
}

}  // namespace vmsight
