#include "cli/state_loop.h"

#include <unistd.h>
#include <csignal>

#include "base/clock.h"
#include "cli/stop_signal.h"

namespace vmsight {

StateLoop::StateLoop(Session& session, const StateLoopOptions& options)
    : session_(session),
      options_(options),
      ticker_(options.rate == 0 ? 0 : static_cast<std::uint64_t>(1e9 / options.rate)) {}

Result<void> StateLoop::run(const Show& show) {
  end_orderly_on({SIGINT, SIGTERM});
  session_.common.reads_states = true;
  VMSIGHT_TRY(guest_, open_named_memory(session_.common));
  VMSIGHT_TRY_VOID(enter_sandbox_for(guest_, session_.common));
  const bool endless = !options_.count && !options_.duration_s;
  if (guest_.image && endless) options_.count = 1;  // it is always the same
  start_ns_ = monotonic_ns();
  Result<void> done;
  while (done && !ended()) done = follow_kernel(show);
  return done;
}

bool StateLoop::ended() const {
  const double elapsed_s = static_cast<double>(monotonic_ns() - start_ns_) / 1e9;
  return told_to_end() || session_.out.failed() ||
         (options_.count && ticker_.ticks() >= *options_.count) ||
         (options_.duration_s && ticker_.ticks() > 0 && elapsed_s >= *options_.duration_s);
}

/// The VM goes on, so it is the guest that is another one now.
bool StateLoop::alive() const { return guest_.vm && guest_.vm->check_alive().has_value(); }

/// Finds the guest's kernel and reads views of it until the guest reboots or the end is reached.
Result<void> StateLoop::follow_kernel(const Show& show) {
  VMSIGHT_TRY_VOID(find_kernel());
  if (ended()) return {};
  VMSIGHT_TRY(const auto reader, state_reader_of(guest_));
  bool is_first = true;
  while (!ended()) {
    const Ticker::Tick tick = ticker_.wait([&] { return ended(); });
    if (told_to_end()) break;
    auto read = reader->read(options_.state, *state_);
    if (!read && read.error().code == ErrorCode::vm_gone && alive()) return {};
    VMSIGHT_TRY_VOID(std::move(read));
    const View view{.tick = tick,
                    .number = views_++,
                    .since_ns = monotonic_ns() - start_ns_,
                    .is_first_of_kernel = is_first};
    is_first = false;
    read_ns_ += state_->view.duration_ns;
    VMSIGHT_TRY_VOID(show(state_, view));
    VMSIGHT_TRY_VOID(session_.out.finish());
  }
  return {};
}

/// A guest that is rebooting has no kernel for a while.
Result<void> StateLoop::find_kernel() {
  constexpr useconds_t pause_us = 200'000;
  for (;;) {
    auto found = find_kernel_in(guest_, session_.common);
    if (found || views_ == 0 || !alive()) return found;
    if (ended()) return {};
    ::usleep(pause_us);
    VMSIGHT_TRY(vmsight::View view, vmsight::View::begin(*guest_.memory));
    VMSIGHT_TRY_VOID(view.end());
  }
}

}  // namespace vmsight
