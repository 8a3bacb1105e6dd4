// A line on standard error that says what takes so long; only on a terminal, only after 300 ms.
#pragma once

#include <chrono>
#include <string_view>

namespace vmsight {

class Progress {
 public:
  Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // removes the line

  void say(std::string_view what);

 private:
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace vmsight
