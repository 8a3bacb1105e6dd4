#include "state/proven_state.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/clock.h"

namespace vmsight {
namespace {

bool has_torn(const State& state) {
  return std::ranges::any_of(
      state.processes, [](const Process& process) { return process.validity == Validity::torn; });
}

}  // namespace

Result<std::unique_ptr<StateReader>> StateReader::create_proven(Kernel& kernel, GuestMemory& live,
                                                                GuestMemory* otherwise,
                                                                const ProofOptions& options) {
  VMSIGHT_TRY(std::unique_ptr<StateReader> reader,
              ProvenStateReader::create(kernel, live, otherwise, options));
  return reader;
}

Result<std::unique_ptr<ProvenStateReader>> ProvenStateReader::create(Kernel& kernel,
                                                                     GuestMemory& live,
                                                                     GuestMemory* otherwise,
                                                                     const ProofOptions& options) {
  std::unique_ptr<ProvenStateReader> made(new ProvenStateReader(kernel, live, options));
  VMSIGHT_TRY(made->reader_, LinuxStateReader::create(kernel, made->as_if_halted_));
  made->reader_->record_to(&made->log_);
  if (otherwise != nullptr) {
    VMSIGHT_TRY(made->otherwise_, LinuxStateReader::create(kernel, *otherwise));
  }
  return made;
}

Result<void> ProvenStateReader::read(const StateOptions& options, State& into) {
  VMSIGHT_TRY_VOID(kernel_.check_running());
  const Stopwatch watch;
  const std::uint64_t start = monotonic_ns();
  const std::chrono::nanoseconds patience = options_.patience;
  std::string why;
  bool holds = false;  // held_ is proven
  for (unsigned attempt = 1;; ++attempt) {
    VMSIGHT_TRY(const bool proven, read_once(options, into, why));
    const bool is_last = attempt >= options_.attempts || log_.is_full() ||
                         watch.elapsed_ns() > static_cast<std::uint64_t>(patience.count());
    if (proven) {
      into.view.consistency = Consistency::proof;
      into.view.retries += attempt - 1;
      into.view.duration_ns = monotonic_ns() - into.view.start_ns;
      if (!has_torn(into)) return {};
      // The moment may lie in the middle of a change. That is worth another one; if there is none, this one is true.
      std::swap(into, held_);
      holds = true;
    }
    if (is_last && holds) {
      std::swap(into, held_);
      return {};
    }
    if (is_last) {
      why += fmt::format(" ({} attempts in {} ms)", attempt, watch.elapsed_ns() / 1'000'000);
      break;
    }
    // What is under way is given a moment; a vCPU that the host does not run needs a longer one.
    std::this_thread::sleep_for(std::chrono::microseconds(100) * attempt);
  }
  if (!otherwise_) {
    return Error{.code = ErrorCode::timeout,
                 .message = "read one moment of a guest that runs: " + why,
                 .hint =
                     "allow a pause (without --no-pause), or take single moments (without "
                     "--consistent)"};
  }
  VMSIGHT_TRY_VOID(otherwise_->read(options, into));
  into.view.not_proven = std::move(why);
  into.view.duration_ns += into.view.start_ns - start;
  into.view.start_ns = start;
  return {};
}

/// Whether the state is that of one moment.
Result<bool> ProvenStateReader::read_once(const StateOptions& options, State& into,
                                          std::string& why) {
  log_.begin();
  const auto read = reader_->read(options, into);
  if (!read && ends_reading(read.error()))
    return read.error();  // of a guest that was reset said once only
  if (log_.is_full()) {
    why = "it is too large to be read twice as a whole";
    return false;
  }
  VMSIGHT_TRY(const auto change, log_.changed(live_, kernel_.space()));
  if (change) {
    why = fmt::format("{} changed at {}", change->part, change->at);
    return false;
  }
  VMSIGHT_TRY_VOID(read);
  return true;
}

}  // namespace vmsight
