// Delivers alarms by threads of its own, for what may take long.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/os.h"
#include "detect/losses.h"
#include "detect/sink.h"

namespace vmsight::detect {

class BackgroundSink final : public AlarmSink {
 public:
  struct Options {
    std::string name;  // in messages: "run /usr/bin/mail"
    unsigned threads = 1;
    std::size_t waiting = 64;  // alarms; more are lost
    std::size_t batch = 1;     // alarms that are sent together
    std::chrono::milliseconds flush_limit{};
  };
  /// Sends the alarms, which takes a bounded time, and ends early when `stop` can be read. Called by
  /// several threads at once.
  using Send = std::function<Result<void>(std::span<const Alarm> alarms, int stop)>;

  BackgroundSink(Options options, UniqueFd stop, Send send);
  BackgroundSink(const BackgroundSink&) = delete;
  BackgroundSink& operator=(const BackgroundSink&) = delete;
  /// What is being sent is stopped; what waits is not sent. flush() comes first.
  ~BackgroundSink() override;

  Result<void> deliver(const Alarm& alarm) override;
  Result<void> flush() override;
  std::uint64_t lost() const override;

 private:
  void work();
  void start_thread();
  void lose(Error error, std::size_t alarms);
  Result<void> take_error();

  Options options_;
  UniqueFd stop_;
  Send send_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Alarm> waiting_;
  std::size_t busy_ = 0;  // threads that send
  bool ends_ = false;
  Losses losses_;
  std::optional<Error> error_;  // that the caller has not been told yet
  std::vector<std::thread> threads_;
};

/// With the descriptor that it needs.
Result<std::unique_ptr<AlarmSink>> make_background_sink(BackgroundSink::Options options,
                                                        BackgroundSink::Send send);

}  // namespace vmsight::detect
