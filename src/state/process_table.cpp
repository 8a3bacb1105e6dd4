#include "state/process_table.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace vmsight {

namespace {
// The kernel changes the list for nanoseconds at a time: a few tries get through any fork storm.
constexpr unsigned list_attempts = 16;

/// A vCPU that the host does not run stands in the middle of what it was doing: reading again at
/// once would find the same. Longer each time, some 2 ms in all for the default of 3 attempts.
void wait_for_guest(unsigned attempt) {
  std::this_thread::sleep_for(std::chrono::microseconds(125) * (1u << std::min(attempt, 8u)));
}
}  // namespace

Result<void> ProcessTable::read(Context& context, unsigned parts, const ChangeCounts& counts) {
  ProcessContext process{context, paths_, proofs_, shared_, parts};
  proofs_.begin(context.reader.memory().is_live());
  entries_.clear();
  disordered_ = false;
  retries_ = 0;
  walk(context);
  read_found(process);
  if (proofs_.live()) VMSIGHT_TRY_VOID(verify(process, counts));
  in_order(context);
  return {};
}

/// Fills found_, by ascending pid.
void ProcessTable::walk(Context& context) {
  Reader& reader = context.reader;
  const unsigned attempts = reader.memory().is_live() ? list_attempts : 1;
  const std::size_t limit = context.options.max_processes;
  for (unsigned i = 0; i < attempts; ++i) {
    found_.clear();
    reader.begin_object();
    processes_.tasks().walk(reader, limit, found_);
    if (reader.ok()) break;
    if (i > 2) wait_for_guest(i / 4);
    reader.refetch();
    ++retries_;
    if (reader.memory().is_live()) ++context.state.view.inconsistencies.list;
    if (i + 1 < attempts) continue;
    found_.clear();
    reader.begin_object();
    processes_.tasks().walk_forward(reader, limit, found_);
    context.state.problem("processes", fmt::format("the list of tasks does not hold together{}",
                                                   reader.ok() ? "" : ", and breaks"));
    reader.clear_fault();
  }
  if (found_.size() == limit) {
    context.state.problem("processes", fmt::format("more than {} were left out", limit));
  }
  if (const auto only = context.options.pid) {
    std::erase_if(found_, [&](const TaskIdentity& task) { return task.pid != *only; });
  }
  std::sort(found_.begin(), found_.end(), [](const TaskIdentity& a, const TaskIdentity& b) {
    return std::pair(a.pid, a.task) < std::pair(b.pid, b.task);
  });
  found_.erase(std::unique(found_.begin(), found_.end()), found_.end());  // of a circle
}

void ProcessTable::read_found(ProcessContext& process) {
  for (const TaskIdentity& identity : found_) {
    if (process.out_of_time()) {
      process.state().problem("processes", fmt::format("gave up after {} of {}: they take too long",
                                                       entries_.size(), found_.size()));
      return;
    }
    proofs_.set_owner(static_cast<Proofs::Owner>(entries_.size()));
    entries_.push_back({identity});
    read_first(process, entries_.back());
  }
}

/// One reading. False if something faulted; then the records are what came before.
bool ProcessTable::read_once(ProcessContext& process, Entry& entry) {
  process.reader().begin_object();
  shared_.maps_in_change = false;
  entry.begin = mark(process.context);
  entry.gone = !processes_.read(process, entry.identity);
  if (entry.gone) {
    Reader& reader = process.reader();
    const TaskIdentity now = processes_.tasks().identity(reader, entry.identity.task);
    entry.recycled = reader.ok() && now != entry.identity;
  }
  entry.end = mark(process.context);
  return process.reader().ok();
}

void ProcessTable::read_first(ProcessContext& process, Entry& entry) {
  const std::size_t proven = proofs_.size();
  if (read_once(process, entry)) return;
  if (!proofs_.live()) {
    mark_torn(process, entry, fault_told(process.reader()));
    return;
  }
  entry.suspect = true;
  roll_back(process.context, entry.begin);
  proofs_.truncate(proven);
  paths_.forget();  // what it added may be as wrong
  shared_.namespaces.clear();
}

Result<void> ProcessTable::verify(ProcessContext& process, const ChangeCounts& counts) {
  if (proofs_.is_full()) {
    process.state().problem("processes", "more was read than can be proven not to have changed");
  }
  VMSIGHT_TRY(const auto changed, proofs_.changed(process.reader().memory()));
  VMSIGHT_TRY(const bool all, renamed(process, counts));
  const std::size_t known = entries_.size();
  bool lost = false;
  for (std::size_t i = 0; i < known; ++i) {
    if (process.out_of_time()) {
      process.state().problem("processes", "gave up proving that they did not change");
      break;
    }
    const bool differed =
        entries_[i].suspect || std::binary_search(changed.begin(), changed.end(), i);
    if (all || differed) VMSIGHT_TRY_VOID(read_again(process, entries_[i]));
    if (differed || entries_[i].gone) count(entries_[i], process.state().view.inconsistencies);
    lost = lost || entries_[i].gone;
  }
  if (lost) VMSIGHT_TRY_VOID(find_missed(process));
  return {};
}

void ProcessTable::count(const Entry& entry, Inconsistencies& into) {
  if (entry.gone)
    ++(entry.recycled ? into.recycled : into.died);
  else
    ++(entry.suspect ? into.unreadable : into.changed);
}

/// Was any directory renamed that is part of a path we gave?
Result<bool> ProcessTable::renamed(ProcessContext& process, const ChangeCounts& counts) {
  GuestMemory& memory = process.reader().memory();
  VMSIGHT_TRY(const bool any, counts.renamed(memory));
  if (!any) return false;
  VMSIGHT_TRY(const auto changed, paths_.names().changed(memory));
  return !changed.empty();
}

/// Reads a process anew until its own proof holds.
Result<void> ProcessTable::read_again(ProcessContext& process, Entry& entry) {
  disordered_ = true;
  Proofs own;
  ProcessContext alone{process.context, paths_, own, shared_, process.parts};
  Reader& reader = process.reader();
  const unsigned attempts = std::max(1u, process.context.options.attempts);
  // The first reading only finds which pages it needs: those that are in a cache are old.
  for (unsigned i = 0; i <= attempts; ++i) {
    if (i > 0) {
      roll_back(process.context, entry.begin);
      if (i > 1) wait_for_guest(i);
      reader.refetch();
      ++retries_;
    }
    own.begin(true);
    paths_.forget();
    shared_.namespaces.clear();
    if (!read_once(alone, entry) || i == 0) continue;
    VMSIGHT_TRY(const auto changed, own.changed(reader.memory()));
    if (changed.empty()) return {};
  }
  mark_torn(process, entry,
            reader.ok() ? fmt::format("changed while it was read, {} times", attempts)
                        : fault_told(reader));
  return {};
}

/// A task that vanished may have handed its number to another one (exec by a thread), so the
/// list is walked again for processes that were there all the time.
Result<void> ProcessTable::find_missed(ProcessContext& process) {
  Reader& reader = process.reader();
  reader.begin_object();
  found_.clear();
  processes_.tasks().walk(reader, process.context.options.max_processes, found_);
  reader.refetch();  // pages of the first walk may be in a cache
  walk(process.context);
  const std::size_t known = entries_.size();
  for (const TaskIdentity& identity : found_) {
    const auto end = entries_.begin() + static_cast<std::ptrdiff_t>(known);
    const auto at = std::lower_bound(
        entries_.begin(), end, identity.pid,
        [](const Entry& entry, std::int32_t pid) { return entry.identity.pid < pid; });
    if (at == end || at->identity.pid != identity.pid || at->gone) entries_.push_back({identity});
  }
  for (std::size_t i = known; i < entries_.size(); ++i) {
    if (process.out_of_time()) {
      process.state().problem("processes", "gave up on those that started meanwhile");
      entries_.resize(i);
      break;
    }
    VMSIGHT_TRY_VOID(read_again(process, entries_[i]));
  }
  return {};
}

/// Why the process that was just read does not hold together.
std::string ProcessTable::fault_told(const Reader& reader) const {
  if (shared_.maps_in_change) return "the guest is changing its memory maps, whose lock it holds";
  return fmt::format("is not readable at {}", *reader.fault());
}

void ProcessTable::mark_torn(ProcessContext& process, const Entry& entry, std::string why) {
  State& state = process.state();
  if (entry.end.processes > entry.begin.processes) {
    state.processes[entry.begin.processes].validity = Validity::torn;
    if (proofs_.live()) ++state.view.inconsistencies.torn;
  }
  state.problem(fmt::format("process {}", entry.identity.pid), std::move(why));
  process.reader().clear_fault();
}

ProcessTable::Mark ProcessTable::mark(const Context& context) {
  const State& state = context.state;
  return {state.processes.size(),   state.threads.size(),        state.open_files.size(),
          state.memory_maps.size(), context.socket_files.size(), state.problems.size()};
}

void ProcessTable::roll_back(Context& context, const Mark& to) {
  State& state = context.state;
  state.processes.resize(to.processes);
  state.threads.resize(to.threads);
  state.open_files.resize(to.files);
  state.memory_maps.resize(to.maps);
  context.socket_files.resize(to.sockets);
  state.problems.resize(to.problems);
}

namespace {

/// Keeps the records of the ranges given, in that order.
template <typename Record, typename Ranges>
void gather(std::vector<Record>& records, const Ranges& ranges) {
  std::vector<Record> kept;
  kept.reserve(records.size());
  for (const auto& [begin, end] : ranges) {
    for (std::size_t i = begin; i < end; ++i) kept.push_back(std::move(records[i]));
  }
  records = std::move(kept);
}

}  // namespace

/// After re-reading: drops superseded records, and sorts those of each process to their place.
void ProcessTable::in_order(Context& context) {
  if (!disordered_) return;
  std::erase_if(entries_, [](const Entry& entry) { return entry.gone; });
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.identity.pid < b.identity.pid; });
  const auto ranges = [&](std::size_t Mark::*member) {
    std::vector<std::pair<std::size_t, std::size_t>> result;
    for (const Entry& entry : entries_) {
      result.emplace_back(entry.begin.*member, entry.end.*member);
    }
    return result;
  };
  gather(context.state.processes, ranges(&Mark::processes));
  gather(context.state.threads, ranges(&Mark::threads));
  gather(context.state.open_files, ranges(&Mark::files));
  gather(context.state.memory_maps, ranges(&Mark::maps));
  gather(context.socket_files, ranges(&Mark::sockets));
}

}  // namespace vmsight
