// Scenes of open files and mappings inside one process.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "puppet.h"

#ifndef PR_SET_VMA  // Linux 5.17
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static int open_new(const char* path, int flags) { return open(path, O_CREAT | flags, 0644); }

int open_files(int count) {
  static const int flags[] = {O_RDWR, O_WRONLY | O_APPEND, O_RDONLY,
                              O_RDWR | O_NONBLOCK | O_CLOEXEC};
  struct rlimit limit = {count + 1024, count + 1024};
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 0; i < count; i++) {
    char path[64];
    snprintf(path, sizeof(path), "/tmp/file-%d-%d", getpid(), i);
    int fd = open_new(path, flags[i % COUNT(flags)]);
    if (fd < 0) return -1;
    if ((i % 4) != 2 && write(fd, path, strlen(path)) < 0) return -1;
    if (i % 3 == 0) lseek(fd, i * 7, SEEK_SET);
  }
  return 0;
}

// Areas that the kernel cannot merge: no neighbours have the same protection.
int map_areas(int count) {
  static const int protections[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE,
                                    PROT_READ | PROT_EXEC};
  for (int i = 0; i < count; i++)
    if (mmap(NULL, (1 + i % 5) * 4096L, protections[i % COUNT(protections)],
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
      return -1;
  return 0;
}

static int hold_files(int count) {
  prctl(PR_SET_NAME, "files");
  return open_files(count);
}

int make_files(int count) { return spawn(hold_files, count) < 0 ? -1 : 0; }

static void* map_file(int fd, int protection, int flags, off_t offset) {
  void* at = mmap(NULL, 4096, protection, flags, fd, offset);
  if (at != MAP_FAILED && (protection & PROT_WRITE)) *(volatile char*)at = 1;
  return at;
}

static int open_sized(const char* path) {
  int fd = open_new(path, O_RDWR);
  return fd < 0 || ftruncate(fd, 16384) < 0 ? -1 : fd;
}

// Kernels that cannot, or have no such memory left, go without.
static void map_huge_pages(void) {
  const size_t huge = 2 << 20;
  int reserve = open("/proc/sys/vm/nr_hugepages", O_WRONLY | O_CLOEXEC);
  if (reserve < 0 || write(reserve, "1", 1) != 1)
    dprintf(2, "puppet: no huge pages: %s\n", strerror(errno));
  close(reserve);
  char* reserved =
      mmap(NULL, huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (reserved != MAP_FAILED) *reserved = 1;
  char* area = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) return;
  madvise(area, 2 * huge, MADV_HUGEPAGE);
  area[huge] = 1;
  prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, area, 4096UL, "named by prctl");
}

static int hold_maps(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "maps");
  int plain = open_sized("/tmp/mapped"), odd = open_sized("/tmp/new\nline \xff"),
      gone = open_sized("/tmp/gone");
  unlink("/tmp/gone");
  int memory = memfd_create("map me", 0);
  if (plain < 0 || odd < 0 || gone < 0 || memory < 0 || ftruncate(memory, 8192) < 0) return -1;
  map_file(plain, PROT_READ, MAP_SHARED, 0);
  map_file(plain, PROT_READ | PROT_WRITE, MAP_PRIVATE, 8192);
  map_file(odd, PROT_READ | PROT_WRITE, MAP_SHARED, 4096);
  map_file(gone, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  map_file(memory, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  map_file(-1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, 0);
  mlock(map_file(-1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, 0), 4096);
  mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  map_huge_pages();
  shmat(shmget(IPC_PRIVATE, 12288, IPC_CREAT | 0600), NULL, 0);
  return map_areas(64);
}

int make_maps(void) { return spawn(hold_maps, 0) < 0 ? -1 : 0; }

static int hold_anonymous_files(void) {
  int pipes[2], pair[2];
  int event = eventfd(3, 0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  int poll = epoll_create1(0), watch = inotify_init1(0);
  struct epoll_event interest = {.events = EPOLLIN};
  struct itimerspec hour = {.it_value.tv_sec = 3600};
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || event < 0 || timer < 0 ||
      poll < 0 || watch < 0)
    return -1;
  timerfd_settime(timer, 0, &hour, NULL);
  epoll_ctl(poll, EPOLL_CTL_ADD, event, &interest);
  epoll_ctl(poll, EPOLL_CTL_ADD, pair[1], &interest);
  epoll_ctl(poll, EPOLL_CTL_ADD, pipes[0], &interest);
  inotify_add_watch(watch, "/tmp", IN_CREATE);
  syscall(SYS_pidfd_open, 1, 0);
  return signalfd(-1, &signals, 0) < 0 || write(pipes[1], "unread", 6) < 0 ? -1 : 0;
}

static int hold_gone_files(void) {
  int gone = open_sized("/tmp/deleted file"), memory = memfd_create("secret", MFD_CLOEXEC);
  unlink("/tmp/deleted file");
  map_file(gone, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
  mkdir("/tmp/gone directory", 0755);
  int directory = open("/tmp/gone directory", O_RDONLY | O_DIRECTORY);
  rmdir("/tmp/gone directory");
  shmat(shmget(0x5eed, 8192, IPC_CREAT | 0600), NULL, 0);
  return gone < 0 || memory < 0 || directory < 0 ? -1 : 0;
}

// A lock of the whole file of each kind, a part, and none at all.
static int hold_locks(void) {
  struct flock write = {.l_type = F_WRLCK}, read = {.l_type = F_RDLCK, .l_start = 5, .l_len = 10};
  struct flock open_file = {.l_type = F_WRLCK};
  int whole = open_sized("/tmp/locked"), part = open_sized("/tmp/partly locked");
  int by_flock = open_sized("/tmp/flocked"), shared = open_sized("/tmp/shared");
  int by_nobody = open_sized("/tmp/locked by nobody");
  if (whole < 0 || part < 0 || by_flock < 0 || shared < 0 || by_nobody < 0) return -1;
  return fcntl(whole, F_SETLK, &write) || fcntl(part, F_SETLK, &read) || flock(by_flock, LOCK_EX) ||
                 flock(shared, LOCK_SH) || fcntl(by_nobody, F_OFD_SETLK, &open_file)
             ? -1
             : 0;
}

static int hold_named_files(void) {
  static const struct {
    const char* path;
    int flags;
  } files[] = {
      {"/dev/null", O_RDWR},
      {"/dev/zero", O_RDONLY},
      {"/dev/kmsg", O_RDONLY | O_NONBLOCK},
      {"/dev/ttyS0", O_RDWR | O_NOCTTY | O_NONBLOCK},
      {"/dev/vda", O_RDONLY},
      {"/dev/ptmx", O_RDWR | O_NOCTTY},
      {"/proc/self/stat", O_RDONLY},
      {"/proc/self/ns/net", O_RDONLY},
      {"/proc/1/ns/mnt", O_RDONLY},
      {"/sys/kernel/uevent_seqnum", O_RDONLY},
      {"/", O_RDONLY | O_DIRECTORY},
      {"/bin/sh", O_PATH},
      {"/tmp/fifo", O_RDWR},
      {"/tmp/bound/inside", O_RDWR | O_CREAT},
      {"/tmp/append", O_WRONLY | O_APPEND | O_CREAT},
  };
  mkfifo("/tmp/fifo", 0600);
  mkdir("/tmp/origin", 0755);
  mkdir("/tmp/bound", 0755);
  if (mount("/tmp/origin", "/tmp/bound", NULL, MS_BIND, NULL)) return -1;
  for (size_t i = 0; i < COUNT(files); i++)
    if (open(files[i].path, files[i].flags, 0644) < 0 && errno != ENOENT && errno != EIO) return -1;
  return 0;
}

static int hold_special(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "special");
  return hold_anonymous_files() || hold_gone_files() || hold_locks() || hold_named_files() ? -1 : 0;
}

int make_special(void) { return spawn(hold_special, 0) < 0 ? -1 : 0; }
