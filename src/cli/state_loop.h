// The state of a guest again and again, at a given rate and through its reboots.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "base/ticker.h"
#include "cli/attach.h"

namespace vmsight {

struct StateLoopOptions {
  StateOptions state;
  double rate = 1;  // views a second; 0: as many as can be had
  std::optional<std::uint64_t> count;
  std::optional<double> duration_s;
};

class StateLoop {
 public:
  StateLoop(Session& session, const StateLoopOptions& options);

  struct View {
    Ticker::Tick tick;
    std::uint64_t number = 0;    // from 0
    std::uint64_t since_ns = 0;  // the loop's beginning
    bool is_first_of_kernel =
        false;  // of the first kernel, or of one that the guest has booted since
  };
  /// `state` may be swapped with another one: the next view overwrites what is there then.
  using Show = std::function<Result<void>(std::unique_ptr<State>& state, const View& view)>;

  /// Until `count` or `duration_s` is reached (neither: an image is read once), SIGINT or SIGTERM has come, nobody reads the output any more, or
  /// something fails.
  Result<void> run(const Show& show);

  const Guest& guest() const { return guest_; }
  const Ticker& ticker() const { return ticker_; }
  std::uint64_t views() const { return views_; }
  std::uint64_t read_ns() const { return read_ns_; }  // of all views

 private:
  bool ended() const;
  bool alive() const;
  Result<void> follow_kernel(const Show& show);
  Result<void> find_kernel();

  Session& session_;
  StateLoopOptions options_;
  Ticker ticker_;
  Guest guest_;
  std::unique_ptr<State> state_ = std::make_unique<State>();
  std::uint64_t start_ns_ = 0, views_ = 0, read_ns_ = 0;
};

}  // namespace vmsight
