// The line to the host: commands in, framed answers out.
//
// An answer is any number of `data LENGTH\n<bytes>` and at last `ok\n` or `error TEXT\n`.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "puppet.h"

static int port = -1;
static char pending[1 << 16];  // payload not sent yet
static size_t pending_size;

static void send_all(const char* data, size_t size) {
  while (size > 0) {
    ssize_t sent = write(port, data, size);
    if (sent < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      return;  // the host is gone: the answer has no reader
    }
    data += sent;
    size -= sent;
  }
}

static void flush(void) {
  if (pending_size == 0) return;
  char header[32];
  send_all(header, sprintf(header, "data %zu\n", pending_size));
  send_all(pending, pending_size);
  pending_size = 0;
}

void channel_write(const void* data, size_t size) {
  const char* from = data;
  while (size > 0) {
    size_t room = sizeof(pending) - pending_size;
    size_t part = size < room ? size : room;
    memcpy(pending + pending_size, from, part);
    pending_size += part;
    from += part;
    size -= part;
    if (pending_size == sizeof(pending)) flush();
  }
}

void channel_print(const char* format, ...) {
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  channel_write(text, size < (int)sizeof(text) ? (size_t)size : sizeof(text) - 1);
}

void channel_ok(void) {
  flush();
  send_all("ok\n", 3);
}

void channel_error(const char* format, ...) {
  char text[512] = "error ";
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + 6, sizeof(text) - 8, format, arguments);
  va_end(arguments);
  pending_size = 0;
  strcat(text, "\n");
  send_all(text, strlen(text));
}

void channel_hello(const char* token) {
  char text[128];
  send_all(text, snprintf(text, sizeof(text), "\nhello %s\n", token));
}

void channel_close(void) {
  if (port >= 0) close(port);
  port = -1;
}

char* channel_line(void) {
  static char buffer[1 << 16];
  static size_t used, consumed;
  memmove(buffer, buffer + consumed, used -= consumed);
  consumed = 0;
  for (;;) {
    char* end = memchr(buffer, '\n', used);
    if (end) {
      *end = 0;
      consumed = end - buffer + 1;
      return buffer;
    }
    if (used == sizeof(buffer)) used = 0;  // no command is that long
    ssize_t size = read(port, buffer + used, sizeof(buffer) - used);
    if (size > 0)
      used += size;
    else  // no host on the other end. A poll of the port would spin: it reports POLLHUP at once.
      poll(NULL, 0, 10);
  }
}

// The port's device is /dev/vportNpM; its name is the one the lab gave it.
static int open_virtio_port(void) {
  DIR* ports = opendir("/sys/class/virtio-ports");
  if (!ports) return -1;
  int fd = -1;
  for (struct dirent* entry; fd < 0 && (entry = readdir(ports));) {
    char path[300], name[64] = "";
    snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
    FILE* file = fopen(path, "re");
    if (!file) continue;
    if (fgets(name, sizeof(name), file) && strncmp(name, "vmsight.puppet", 14) == 0) {
      snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
      fd = open(path, O_RDWR | O_CLOEXEC);
    }
    fclose(file);
  }
  closedir(ports);
  return fd;
}

static int open_serial_line(void) {
  int fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
  struct termios raw;
  if (fd < 0 || tcgetattr(fd, &raw) < 0) return -1;
  cfmakeraw(&raw);
  tcsetattr(fd, TCSANOW, &raw);
  return fd;
}

void channel_open(void) {
  for (int attempt = 0;; attempt++) {
    port = open_virtio_port();
    if (port < 0 && attempt >= 50) port = open_serial_line();
    if (port >= 0) return;
    if (attempt == 100) dprintf(2, "puppet: no virtio port and no second serial line\n");
    poll(NULL, 0, 20);
  }
}
