// Calls that a kernel which is mended never lets come to where the mistake was. A process goes as far as it can and
// waits; from outside, the state of a kernel that is not mended is written into the guest's memory; on a sign it goes on.
#include <netinet/in.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "puppet.h"

static int descriptor;  // of what the call is about; told to who asks

// CVE-2022-0847: a page of a file in a pipe, which somebody marks as one that may be added to.
static int prepare_dirty_pipe(void) {
  int ends[2];
  loff_t from = 0;
  const int file = open("/tmp/read-only", O_RDONLY);
  if (file < 0 || pipe(ends) || splice(file, &from, ends[1], NULL, 1, 0) != 1) return -1;
  descriptor = ends[1];
  return 0;
}
static int make_dirty_pipe(void) { return write(descriptor, "EVIL", 4) == 4 ? 0 : -1; }

// CVE-2021-33909: a file that the kernel writes on the fly, whose buffer is said to be of a gigabyte.
static int prepare_gigabyte_line(void) {
  char byte;
  descriptor = open("/proc/self/mountinfo", O_RDONLY);
  return descriptor >= 0 && read(descriptor, &byte, 1) == 1 ? 0 : -1;
}
static int make_gigabyte_line(void) {
  char byte;
  return read(descriptor, &byte, 1) == 1 ? 0 : -1;
}

// CVE-2023-0461: a socket that is given an upper protocol which cannot be cloned.
static int prepare_tls_listen(void) {
  descriptor = socket(AF_INET, SOCK_STREAM, 0);
  return descriptor < 0 ? -1 : 0;
}
static int make_tls_listen(void) { return listen(descriptor, 1); }

static const struct {
  const char* name;
  int (*prepare)(void);
  int (*make)(void);
} calls[] = {{"dirty-pipe", prepare_dirty_pipe, make_dirty_pipe},
             {"gigabyte-line", prepare_gigabyte_line, make_gigabyte_line},
             {"tls-listen", prepare_tls_listen, make_tls_listen}};

static void tell(const char* name, const char* kind, int error) {
  char path[64], unfinished[72];
  snprintf(path, sizeof(path), "/tmp/%s.%s", name, kind);
  snprintf(unfinished, sizeof(unfinished), "%s~", path);
  FILE* out = fopen(unfinished, "w");
  if (!out) _exit(errno);
  fprintf(out, "%d %s\n", descriptor, error == 0 ? "0" : strerrorname_np(error));
  fclose(out);
  rename(unfinished, path);
}

int prepare(const char* name) {
  for (size_t i = 0; i < COUNT(calls); i++) {
    if (strcmp(calls[i].name, name) != 0) continue;
    const pid_t pid = fork();
    if (pid == 0) {
      char go[64];
      snprintf(go, sizeof(go), "/tmp/%s.go", name);
      become_actor();
      prctl(PR_SET_NAME, "prepared");
      tell(name, "ready", calls[i].prepare() ? errno : 0);
      while (access(go, F_OK)) usleep(20 * 1000);
      tell(name, "done", calls[i].make() ? errno : 0);
      _exit(0);
    }
    channel_print("pid=%d\n", pid);
    return pid < 0 ? -1 : 0;
  }
  errno = EINVAL;
  return -1;
}
