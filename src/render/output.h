// Where results go: a buffered file descriptor that remembers its first write error.
#pragma once

#include <fmt/format.h>
#include <string_view>
#include <utility>

#include "vmsight/result.h"

namespace vmsight {

/// Collects text and writes it in large pieces. After a failed write all further text is
/// dropped, and finish() tells; so renderers print without checking each line.
class Output {
 public:
  /// Writes to `fd`, which the caller keeps open. `fd` < 0 only collects: see text().
  explicit Output(int fd = -1) : fd_(fd) {}
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void write(std::string_view text) {
    buffer_.append(text);
    if (buffer_.size() >= flush_size) flush();
  }
  template <typename... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(fmt::appender(buffer_), format, std::forward<Args>(args)...);
    if (buffer_.size() >= flush_size) flush();
  }

  /// Writes what is left. The error of the first write that failed (disk full, reader gone).
  Result<void> finish();
  /// Nobody reads our output any more: a renderer of much text may stop early.
  bool failed() const { return errno_ != 0; }

  /// What was collected, without a file descriptor.
  std::string_view text() const { return {buffer_.data(), buffer_.size()}; }

 private:
  static constexpr std::size_t flush_size = 64 * 1024;
  void flush();

  int fd_;
  int errno_ = 0;
  fmt::memory_buffer buffer_;
};

/// Columns of the terminal that `fd` is; 0 if it is none.
std::size_t terminal_width(int fd);

}  // namespace vmsight
