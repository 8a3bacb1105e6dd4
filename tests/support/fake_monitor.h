// A QMP socket of this very process with a "guest" that is stopped and resumed. It serves one
// client after the other, as QEMU does.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "base/os.h"
#include "support/stub_vm.h"

namespace vmsight::test {

class FakeMonitor {
 public:
  FakeMonitor();
  ~FakeMonitor();

  const std::string& path() const { return path_; }
  std::string status() const;
  void set_status(std::string status);
  /// Refuses this command from now on.
  void refuse(std::string command);
  /// Whether the status becomes this within some seconds.
  bool becomes(const std::string& status) const;
  /// All that was asked: the command's name, or the line of a human-monitor-command.
  std::vector<std::string> asked() const;
  /// What every human-monitor-command answers from now on; "" at first.
  void set_text(std::string text);
  /// Clients that were greeted so far. `quit` ends the connection of one.
  int served() const { return served_; }

 private:
  void serve();
  void serve_client(int client);
  /// "" ends the connection.
  std::string answer(const std::string& line);

  std::string path_;
  UniqueFd listener_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::string status_ = "running", refused_, text_;
  std::vector<std::string> asked_;
  std::atomic<int> served_ = 0;
  std::binary_semaphore started_{0};
  std::thread thread_;
};

/// A VM whose process is this one and whose monitor is a FakeMonitor.
class MonitoredVm final : public StubVm {
 public:
  explicit MonitoredVm(const FakeMonitor& monitor);
  std::string monitor_note() const override { return ""; }
};

}  // namespace vmsight::test
