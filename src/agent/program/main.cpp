// vmsight-agent: tells vmsight, on the host, what is in this guest's memory. Read-only.
//
//   vmsight-agent [PORT]     PORT: the device of the virtio-serial port org.vmsight.agent.0
//
// Needs CAP_SYS_RAWIO for /proc/kcore, and the right to open the port. Runs until the port goes;
// asleep, but while it is asked. One static program without any dependency.
#include <dirent.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "agent/program/kcore.h"
#include "agent/program/session.h"

namespace vmsight::agent {
namespace {

/// /proc/kcore. Its layout changes when memory is plugged in; that shows in its header.
class Kcore final : public Memory {
 public:
  int open() override {
    if (fd_ < 0) fd_ = ::open("/proc/kcore", O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return errno;
    headers_ = 0;
    return load() ? 0 : ENODATA;
  }

  std::size_t ranges(std::span<Range> into) override {
    const std::size_t count = count_ < into.size() ? count_ : into.size();
    for (std::size_t i = 0; i < count; ++i) into[i] = {segments_[i].start, segments_[i].size};
    return count;
  }

  void check() override { load(); }

  std::size_t read(std::uint64_t start, std::span<std::byte> into) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const Segment* segment = find_segment(std::span(segments_).first(count_), start + done);
      if (segment == nullptr) break;
      const std::uint64_t inside = start + done - segment->start;
      std::size_t size = into.size() - done;
      if (size > segment->size - inside) size = segment->size - inside;
      const ssize_t got =
          ::pread(fd_, into.data() + done, size, static_cast<off_t>(segment->offset + inside));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

 private:
  bool load() {
    std::byte header[kcore_header_size];
    if (::pread(fd_, header, sizeof header, 0) != sizeof header) return false;
    const auto size = kcore_head_size(header);
    if (!size) return false;
    if (*size == headers_) return true;
    const ssize_t got = ::pread(fd_, head_, *size, 0);
    count_ =
        got < 0 ? 0 : find_segments(std::span(head_, static_cast<std::size_t>(got)), segments_);
    headers_ = *size;
    return count_ > 0;
  }

  int fd_ = -1;
  std::size_t headers_ = 0, count_ = 0;
  std::array<Segment, max_ranges> segments_;
  std::byte head_[kcore_max_head];
};

bool names_our_port(const char* port) {
  char path[300], name[64] = "";
  std::snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", port);
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t got = ::read(fd, name, sizeof name - 1);
  ::close(fd);
  const std::size_t length = sizeof port_name - 1;
  return got >= static_cast<ssize_t>(length) && std::memcmp(name, port_name, length) == 0 &&
         (name[length] == '\n' || name[length] == 0);
}

/// The port's device, by its name; works without udev.
bool find_port(char* path, std::size_t size) {
  DIR* ports = ::opendir("/sys/class/virtio-ports");
  if (ports == nullptr) return false;
  bool found = false;
  while (const dirent* entry = found ? nullptr : ::readdir(ports)) {
    if (entry->d_name[0] == '.' || !names_our_port(entry->d_name)) continue;
    found = std::snprintf(path, size, "/dev/%s", entry->d_name) < static_cast<int>(size);
  }
  ::closedir(ports);
  return found;
}

/// True if anything came. A port whose host end is closed reads as empty, at once. That the host
/// end was closed says nothing: the kernel may tell of it after the next client's first bytes.
bool receive(int port, Session& session) {
  const auto room = session.room();
  if (room.empty()) return false;
  const ssize_t got = ::read(port, room.data(), room.size());
  if (got > 0) session.received(static_cast<std::size_t>(got));
  return got > 0 || (got < 0 && errno == EINTR);
}

bool send(int port, Session& session) {
  const auto bytes = session.to_send();
  if (bytes.empty()) return false;
  const ssize_t sent = ::write(port, bytes.data(), bytes.size());
  if (sent > 0) session.sent(static_cast<std::size_t>(sent));
  return sent > 0 || (sent < 0 && errno == EINTR);
}

/// Until the port changes its state. Edges, not levels: a port without a host is always "ready".
bool wait(int events) {
  epoll_event event{};
  return ::epoll_wait(events, &event, 1, -1) >= 0 || errno == EINTR;
}

bool port_is_gone() { return errno == ENODEV || errno == EIO || errno == ENXIO || errno == EBADF; }

int serve(int port, Session& session) {
  const int events = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event wish{.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {}};
  if (events < 0 || ::epoll_ctl(events, EPOLL_CTL_ADD, port, &wish) != 0) return 1;
  while (true) {
    errno = 0;
    bool busy = receive(port, session);
    if (!busy && port_is_gone()) return 0;
    busy = session.step() || busy;
    busy = send(port, session) || busy;
    if (!busy && !wait(events)) return 1;
  }
}

// Large, and used once: not on the stack.
Kcore memory;
Session session(memory);

}  // namespace
}  // namespace vmsight::agent

int main(int count, char** arguments) {
  using namespace vmsight::agent;
  char found[300] = "";
  const char* path = count > 1 ? arguments[1] : found;
  if (count > 2 || path[0] == '-') {
    std::fprintf(stderr, "usage: vmsight-agent [PORT]\n");
    return 2;
  }
  if (count < 2 && !find_port(found, sizeof found)) {
    std::fprintf(stderr, "vmsight-agent: no virtio-serial port is called %s\n", port_name);
    return 1;
  }
  const int port = ::open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (port < 0) {
    std::fprintf(stderr, "vmsight-agent: open %s: %s\n", path, std::strerror(errno));
    return 1;
  }
  return serve(port, session);
}
