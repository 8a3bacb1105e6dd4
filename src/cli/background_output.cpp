#include "cli/background_output.h"

#include <unistd.h>
#include <cerrno>

namespace vmsight {

BackgroundOutput::BackgroundOutput(int fd) : fd_(fd), thread_([this] { work(); }) {}

BackgroundOutput::~BackgroundOutput() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool BackgroundOutput::write(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (errno_ != 0) return true;
  if (waiting_.size() + text.size() > most_waiting) {
    ++dropped_;
    return false;
  }
  waiting_ += text;
  changed_.notify_all();
  return true;
}

bool BackgroundOutput::failed() {
  const std::lock_guard lock(mutex_);
  return errno_ != 0;
}

Result<void> BackgroundOutput::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return (waiting_.empty() && !writes_) || errno_ != 0; });
  if (errno_ == 0) return {};
  return os_error(errno_, "write the output");
}

void BackgroundOutput::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !waiting_.empty() || ends_; });
    if (waiting_.empty()) return;
    const std::string text = std::exchange(waiting_, {});
    writes_ = true;
    lock.unlock();
    int error = 0;
    for (std::size_t done = 0; done < text.size() && error == 0;) {
      const ssize_t written = ::write(fd_, text.data() + done, text.size() - done);
      if (written >= 0)
        done += static_cast<std::size_t>(written);
      else if (errno != EINTR)
        error = errno;
    }
    lock.lock();
    writes_ = false;
    if (error != 0) {
      errno_ = error;
      waiting_.clear();
    }
    changed_.notify_all();
  }
}

}  // namespace vmsight
