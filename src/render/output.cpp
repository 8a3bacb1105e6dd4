#include "render/output.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <cerrno>

namespace vmsight {

void Output::flush() {
  if (fd_ < 0) return;
  std::string_view rest = text();
  while (!rest.empty() && errno_ == 0) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      errno_ = errno;
    }
  }
  buffer_.clear();
}

Result<void> Output::finish() {
  flush();
  if (errno_ != 0) return os_error(errno_, "write the output");
  return {};
}

std::size_t terminal_width(int fd) {
  constexpr std::size_t usual = 80;
  winsize size{};
  if (::isatty(fd) != 1) return 0;
  return ::ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : usual;
}

}  // namespace vmsight
