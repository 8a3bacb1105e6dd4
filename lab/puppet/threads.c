// Processes whose threads differ: in their files, directories, rights, and in whether they live.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "puppet.h"

static bool has_ended(pid_t thread) {
  char path[64], stat[256] = "";
  snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t size = read(fd, stat, sizeof(stat) - 1);
  close(fd);
  return size > 0 && strstr(stat, ") Z ");
}

static void* idle(void* unused) {
  (void)unused;
  sleep_for_ever();
}

static void* outlive(void* unused) {
  (void)unused;
  prctl(PR_SET_NAME, "survivor");
  for (int attempt = 0; attempt < 5000 && !has_ended(getpid()); attempt++) poll(NULL, 0, 1);
  errno = ETIMEDOUT;
  tell_ready(has_ended(getpid()) ? 0 : -1);
  sleep_for_ever();
}

static int start(void* (*body)(void*), void* argument) {
  pthread_t thread;
  errno = pthread_create(&thread, NULL, body, argument);
  return errno ? -1 : 0;
}

// The call itself, not pthread_exit: nothing of the C library is left behind.
static int make_headless(void) {
  pid_t pid = fork_actor();
  if (pid != 0) return pid < 0 ? -1 : 0;
  prctl(PR_SET_NAME, "headless");
  if (open("/tmp/headless", O_RDWR | O_CREAT, 0644) < 0 || socket(AF_UNIX, SOCK_DGRAM, 0) < 0 ||
      chdir("/tmp") || start(idle, NULL) || start(outlive, NULL))
    tell_ready(-1);
  syscall(SYS_exit, 0);
  _exit(1);
}

static int have_own_files(void) {
  prctl(PR_SET_NAME, "own files");
  // Its copy of the pipe would keep whoever waits for the scene waiting.
  return unshare(CLONE_FILES) || close(ready_pipe) ||
                 open("/tmp/of one thread", O_RDWR | O_CREAT, 0644) < 0 ||
                 socket(AF_INET, SOCK_DGRAM, 0) < 0
             ? -1
             : 0;
}

static int stand_elsewhere(void) {
  prctl(PR_SET_NAME, "elsewhere");
  mkdir("/tmp/elsewhere", 0755);
  return unshare(CLONE_FS) || chdir("/tmp/elsewhere") ? -1 : 0;
}

// The calls themselves: the C library would change all threads.
static int be_somebody(void) {
  prctl(PR_SET_NAME, "somebody");
  return setpriority(PRIO_PROCESS, syscall(SYS_gettid), 7) || syscall(SYS_setresgid, 41, 42, 43) ||
                 syscall(SYS_setresuid, 51, 52, 53)
             ? -1
             : 0;
}

static int (*const differences[])(void) = {have_own_files, stand_elsewhere, be_somebody};
static int results[COUNT(differences)];  // 1 once done, -errno
static pthread_barrier_t done;

static void* differ(void* index) {
  size_t which = (size_t)index;
  results[which] = differences[which]() == 0 ? 1 : -errno;
  pthread_barrier_wait(&done);
  sleep_for_ever();
}

static int hold_threads(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "all threads");
  pthread_barrier_init(&done, NULL, COUNT(differences) + 1);
  if (open("/tmp/of all threads", O_RDWR | O_CREAT, 0644) < 0) return -1;
  for (size_t i = 0; i < COUNT(differences); i++)
    if (start(differ, (void*)i)) return -1;
  pthread_barrier_wait(&done);
  for (size_t i = 0; i < COUNT(differences); i++) {
    errno = results[i] == 1 ? 0 : -results[i];
    if (errno) return -1;
  }
  return 0;
}

int make_threads(void) { return make_headless() || spawn(hold_threads, 0) < 0 ? -1 : 0; }
