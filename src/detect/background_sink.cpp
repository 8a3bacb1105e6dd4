#include "detect/background_sink.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>

namespace vmsight::detect {

BackgroundSink::BackgroundSink(Options options, UniqueFd stop, Send send)
    : options_(std::move(options)), stop_(std::move(stop)), send_(std::move(send)) {}

BackgroundSink::~BackgroundSink() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  static_cast<void>(::eventfd_write(stop_.get(), 1));
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BackgroundSink::lose(Error error, std::size_t alarms) {
  auto first = losses_.lose(std::move(error), alarms);
  if (!first && !error_) error_ = std::move(first).error();
}

Result<void> BackgroundSink::take_error() {
  if (!error_) return {};
  Error error = *std::move(error_);
  error_.reset();
  return error;
}

/// Its signals are the caller's: a thread of ours must not take them.
void BackgroundSink::start_thread() {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    threads_.emplace_back([this] { work(); });
  } catch (const std::system_error& failed) {
    lose(os_error(failed.code().value(), options_.name + ": start a thread"), 0);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Result<void> BackgroundSink::deliver(const Alarm& alarm) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= options_.waiting) {
    lose({.code = ErrorCode::timeout,
          .message = fmt::format("{}: {} alarms wait already, more are lost", options_.name,
                                 waiting_.size())},
         1);
    return take_error();
  }
  waiting_.push_back(alarm);
  const std::size_t idle = threads_.size() - busy_;
  if (waiting_.size() > idle && threads_.size() < options_.threads) start_thread();
  changed_.notify_all();
  return take_error();
}

Result<void> BackgroundSink::flush() {
  std::unique_lock lock(mutex_);
  const bool done = changed_.wait_for(lock, options_.flush_limit,
                                      [this] { return waiting_.empty() && busy_ == 0; });
  if (!done && !waiting_.empty()) {
    lose({.code = ErrorCode::timeout,
          .message = fmt::format("{}: {} alarms could not be sent in time", options_.name,
                                 waiting_.size())},
         waiting_.size());
    waiting_.clear();
  }
  return take_error();
}

std::uint64_t BackgroundSink::lost() const {
  const std::lock_guard lock(mutex_);
  return losses_.count();
}

void BackgroundSink::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !waiting_.empty() || ends_; });
    if (ends_) return;
    std::vector<Alarm> alarms;
    while (!waiting_.empty() && alarms.size() < options_.batch) {
      alarms.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    ++busy_;
    lock.unlock();
    auto sent = send_(alarms, stop_.get());
    lock.lock();
    --busy_;
    if (sent) {
      losses_.delivered();
    } else {
      lose(std::move(sent).error(), alarms.size());
    }
    changed_.notify_all();
  }
}

Result<std::unique_ptr<AlarmSink>> make_background_sink(BackgroundSink::Options options,
                                                        BackgroundSink::Send send) {
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return os_error(errno, options.name + ": eventfd");
  return std::unique_ptr<AlarmSink>(
      std::make_unique<BackgroundSink>(std::move(options), std::move(stop), std::move(send)));
}

}  // namespace vmsight::detect
