// Work: fixed amounts of it, timed. What the study of techniques slows down by looking on.
//
// Each kind prints `KEY VALUE` lines: the units done, the guest's own time for them, and what else it
// saw. The host times the same work by its own clock: where the guest's clock stands still in a
// pause, only the host's tells what the pause cost.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "puppet.h"

#define MIB (1u << 20)

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ull + now.tv_nsec;
}

// Memory bandwidth: STREAM's triad, on integers, for emulated floating point would be all there is
// to see. Three arrays, far larger than any cache that a guest is given.
static int work_memory(long passes, const char* argument) {
  (void)argument;
  enum { elements = 8 * MIB / 8 };
  uint64_t *a = malloc(8 * MIB), *b = malloc(8 * MIB), *c = malloc(8 * MIB);
  if (!a || !b || !c) return -1;
  for (size_t i = 0; i < elements; i++) a[i] = b[i] = c[i] = i;
  for (long pass = 0; pass < passes; pass++) {
    for (size_t i = 0; i < elements; i++) a[i] = b[i] + 3 * c[i];
    uint64_t* first = a;
    a = b, b = c, c = first;
    __asm__ volatile("" ::: "memory");
  }
  printf("bytes %ld\n", passes * 24 * (long)MIB);
  return 0;
}

// The device of the disk whose serial number this is.
static int open_disk(const char* serial, int flags) {
  for (char letter = 'a'; letter <= 'h'; letter++) {
    char path[64], found[32] = "";
    snprintf(path, sizeof(path), "/sys/block/vd%c/serial", letter);
    FILE* file = fopen(path, "re");
    if (!file) continue;
    if (!fgets(found, sizeof(found), file)) found[0] = 0;
    fclose(file);
    if (strncmp(found, serial, strlen(serial)) != 0) continue;
    snprintf(path, sizeof(path), "/dev/vd%c", letter);
    return open(path, flags | O_CLOEXEC);
  }
  errno = ENODEV;
  return -1;
}

// Disk throughput: written and read back past the guest's page cache, in a window of 16 MiB.
static int work_disk(long mib, const char* argument) {
  int fd = open_disk(argument, O_RDWR | O_DIRECT);
  void* block;
  if (fd < 0 || posix_memalign(&block, 4096, 64 * 1024)) return -1;
  memset(block, 0x5a, 64 * 1024);
  for (long at = 0; at < mib * 16; at++) {
    off_t offset = (off_t)(at % 256) * 64 * 1024;
    if (pwrite(fd, block, 64 * 1024, offset) != 64 * 1024 ||
        pread(fd, block, 64 * 1024, offset) != 64 * 1024)
      return -1;
  }
  printf("bytes %ld\n", mib * 2 * (long)MIB);
  return 0;
}

// Network throughput: sent to a port of the host, which answers with a byte when it has it all.
static int work_network(long mib, const char* argument) {
  struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons(atoi(argument))};
  inet_pton(AF_INET, "10.0.2.2", &host.sin_addr);  // the host, in QEMU's user network
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  char *block = calloc(1, MIB), byte;
  if (fd < 0 || !block || connect(fd, (struct sockaddr*)&host, sizeof(host)) < 0) return -1;
  for (long i = 0; i < mib; i++)
    for (size_t sent = 0; sent < MIB;) {
      ssize_t size = write(fd, block + sent, MIB - sent);
      if (size < 0) return -1;
      sent += size;
    }
  shutdown(fd, SHUT_WR);
  if (read(fd, &byte, 1) != 1) return -1;
  printf("bytes %ld\n", mib * (long)MIB);
  return 0;
}

// Process churn as a build makes it: a shell for each, which runs a program.
static int work_churn(long processes, const char* argument) {
  (void)argument;
  for (long i = 0; i < processes; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      execl("/bin/busybox", "sh", "-c", "ls /sys/class >/dev/null; :", NULL);
      _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) return -1;
  }
  printf("processes %ld\n", processes);
  return 0;
}

// The guest's own view of pauses: it looks at its clock without end, and remembers the gaps. A gap
// of more than 200 us is more than an interrupt takes, even under emulation.
static int work_jitter(long milliseconds, const char* argument) {
  (void)argument;
  enum { threshold = 200000 };
  uint64_t start = now_ns(), end = start + milliseconds * 1000000ull, last = start;
  uint64_t largest = 0, lost = 0, gaps = 0;
  while (last < end) {
    uint64_t now = now_ns(), gap = now - last;
    last = now;
    if (gap > largest) largest = gap;
    if (gap > threshold) gaps++, lost += gap;
  }
  printf("largest_gap_ns %llu\ngaps %llu\nlost_ns %llu\n", (unsigned long long)largest,
         (unsigned long long)gaps, (unsigned long long)lost);
  return 0;
}

// A clip for the encoder: a gradient that moves under noise, so that there is motion to find.
static int work_clip(long frames, const char* path) {
  enum { width = 352, height = 288 };
  FILE* clip = fopen(path, "we");
  static unsigned char picture[width * height * 3 / 2];
  uint32_t random = 1;
  if (!clip) return -1;
  fprintf(clip, "YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420\n", width, height);
  for (long frame = 0; frame < frames; frame++) {
    for (int y = 0; y < height; y++)
      for (int x = 0; x < width; x++) {
        random = random * 1664525u + 1013904223u;
        picture[y * width + x] = x + 2 * y + 3 * frame + (random >> 28);
      }
    memset(picture + width * height, 128 + frame % 16, width * height / 2);
    fputs("FRAME\n", clip);
    fwrite(picture, 1, sizeof(picture), clip);
  }
  printf("frames %ld\n", frames);
  return fclose(clip) == 0 ? 0 : -1;
}

// A system call whose arguments and result are known: each is told as it was made.
static int open_told(const char* path, int flags, int mode) {
  long result = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  dprintf(STDOUT_FILENO, "openat %d %s %d %d %ld\n", getpid(), path, flags, mode,
          result < 0 ? -(long)errno : result);
  return result;
}

static void make_calls(long rounds) {
  prctl(PR_SET_NAME, "calls");
  for (long i = 0; i < rounds; i++) {
    char path[64], absent[64];
    snprintf(path, sizeof(path), "/tmp/call-%d-%ld", getpid(), i);
    snprintf(absent, sizeof(absent), "/tmp/absent-%d-%ld", getpid(), i);
    int made = open_told(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600 + i % 64);
    int found = open_told(path, O_RDONLY, 0);
    open_told(absent, O_WRONLY, 0);
    close(found);
    close(made);
    unlink(path);
  }
}

// Names of every length whose NUL is the last byte of a page, behind which another text is, and then nothing at all.
static void make_texts(long longest) {
  prctl(PR_SET_NAME, "calls");
  char* pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int is_alone = 0; is_alone < 2; is_alone++) {
    memset(pages, 'n', 8192);
    if (is_alone) mprotect(pages + 4096, 4096, PROT_NONE);
    for (long length = 2; length <= longest; length++) {
      char* path = pages + 4095 - length;
      memset(path, 'a' + length % 26, length);
      path[0] = '/';
      path[length] = '\0';
      open_told(path, O_RDONLY, 0);
    }
  }
}

// As 32-bit programs call: what it points to must be below 4 GiB, as what is in this program is.
static long int_80(long number, long first, long second, long third) {
  long result;
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(number), "b"(first), "c"(second), "d"(third)
               : "memory", "r8", "r9", "r10", "r11");
  return result;
}

// Calls that are rarely made, or are none, after a last common one.
static void make_rare(long rounds) {
  static const char nothing[] = "/nothing";
  prctl(PR_SET_NAME, "rare");
  for (long i = 0; i < rounds; i++) {
    char name[16];
    prctl(PR_SET_NAME, "rare");
    prctl(PR_GET_NAME, name);
    umask(027);
    umask(022);
    close(-1);
    fcntl(0, 0x7b);
    syscall(400, 1, 2);                                                  // a hole in the table
    printf("rare %d %d %ld", getpid(), getppid(), int_80(64, 0, 0, 0));  // getppid
    printf(" %ld\n", int_80(295, AT_FDCWD, (long)nothing, O_RDONLY));    // openat
  }
  fflush(stdout);
}

// A call that does next to nothing, so often and no more. It takes no argument; a probe that looks finds one.
static void make_getppid(long calls) {
  prctl(PR_SET_NAME, "getppid");
  for (long i = 0; i < calls; i++) syscall(SYS_getppid, "/tmp/first-argument");
}

// A call that does little more than to take a name from its caller.
static void make_access(long calls) {
  prctl(PR_SET_NAME, "access");
  for (long i = 0; i < calls; i++) syscall(SYS_access, "/absent/so-it-fails-soon", F_OK);
}

// By so many processes at the same time.
static int in_processes(void (*make)(long), long amount, const char* processes) {
  int count = atoi(processes);
  for (int i = 1; i < count; i++) {
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) {
      make(amount);
      _exit(0);
    }
  }
  make(amount);
  while (wait(NULL) > 0)
    ;
  return 0;
}

// Of a function of ours. Begun early, so that a probe can know the process, it waits for TOLD_GO, a file.
static void make_told(long calls) {
  const char* go = getenv("TOLD_GO");
  prctl(PR_SET_NAME, "told");
  while (go && access(go, F_OK) != 0) usleep(20000);
  for (long i = 0; i < calls; i++) tell_call(i);
}

// Known calls: for probes that must see each of them.
static int work_calls(long rounds, const char* processes) {
  return in_processes(make_calls, rounds, processes);
}
static int work_texts(long longest, const char* processes) {
  return in_processes(make_texts, longest, processes);
}
static int work_rare(long rounds, const char* processes) {
  return in_processes(make_rare, rounds, processes);
}
static int work_getppid(long calls, const char* processes) {
  return in_processes(make_getppid, calls, processes);
}
static int work_told(long calls, const char* processes) {
  return in_processes(make_told, calls, processes);
}
static int work_forge(long traps, const char* argument) {
  (void)argument;
  return forge_traps(traps);
}
static int work_access(long calls, const char* processes) {
  return in_processes(make_access, calls, processes);
}

static const struct {
  const char* name;
  int (*run)(long amount, const char* argument);
} kinds[] = {
    {"memory", work_memory}, {"disk", work_disk},       {"network", work_network},
    {"churn", work_churn},   {"jitter", work_jitter},   {"clip", work_clip},
    {"calls", work_calls},   {"getppid", work_getppid}, {"told", work_told},
    {"forge", work_forge},   {"access", work_access},   {"texts", work_texts},
    {"rare", work_rare},
};

int work_here(char* line) {
  char *rest = NULL, *name = strtok_r(line, " ", &rest), *amount = strtok_r(NULL, " ", &rest);
  char* argument = strtok_r(NULL, " ", &rest);
  for (size_t i = 0; name && i < COUNT(kinds); i++) {
    if (strcmp(kinds[i].name, name) != 0) continue;
    uint64_t start = now_ns();
    if (kinds[i].run(amount ? atol(amount) : 1, argument ? argument : "") < 0) return -1;
    printf("ns %llu\n", (unsigned long long)(now_ns() - start));
    return fflush(stdout);
  }
  errno = EINVAL;
  return -1;
}

// In a process of its own, which prints into a pipe: work takes memory, forks, and may die.
int run_work(char* line) {
  int ends[2];
  sigset_t child, before;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, &before);  // we want to bury it ourselves
  pid_t pid = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
  if (pid == 0) {
    become_actor();
    sigprocmask(SIG_SETMASK, &before, NULL);
    dup2(ends[1], STDOUT_FILENO);
    _exit(work_here(line) < 0 ? (errno ? errno : EIO) : 0);
  }
  if (pid > 0) {
    char output[512];
    close(ends[1]);
    for (ssize_t size; (size = read(ends[0], output, sizeof(output))) > 0;)
      channel_write(output, size);
    close(ends[0]);
  }
  int status = 0;
  pid_t dead = pid < 0 ? -1 : waitpid(pid, &status, 0);
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (dead < 0) return -1;
  errno = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
  return errno ? -1 : 0;
}
