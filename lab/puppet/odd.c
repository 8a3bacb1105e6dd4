// Processes in rare states, with rare names, rights and places.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

// ---- places ----

static int live_in_jail(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "jailed");
  mkdir("/tmp/jail", 0755);
  mkdir("/tmp/jail/home", 0755);
  if (chroot("/tmp/jail") || chdir("/home")) return -1;
  return open("/home/file", O_RDWR | O_CREAT, 0644) < 0 ? -1 : 0;
}

static int live_nowhere(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "nowhere");
  mkdir("/tmp/gone home", 0755);
  return chdir("/tmp/gone home") || rmdir("/tmp/gone home") ? -1 : 0;
}

static int copy_own_program(const char* path) {
  char buffer[1 << 16];
  int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC),
      to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
  ssize_t size;
  while ((size = read(from, buffer, sizeof(buffer))) > 0 && write(to, buffer, size) == size)
    ;
  close(from);
  close(to);
  return size == 0 ? 0 : -1;
}

static int make_deleted_program(void) {
  char* arguments[] = {"gone", NULL};
  Worker worker = {
      .program = "/tmp/gone program", .arguments = arguments, .comm = "gone", .directory = "/"};
  if (copy_own_program(worker.program) || start_worker(&worker) < 0) return -1;
  return unlink(worker.program);
}

// ---- arguments ----

// 150 KiB: more than the 128 KiB that one argument may have.
static int make_long_arguments(void) {
  static char parts[3][50 << 10];
  char* arguments[] = {"long", parts[0], parts[1], parts[2], "end", NULL};
  for (size_t i = 0; i < COUNT(parts); i++) memset(parts[i], 'x' + i, sizeof(parts[i]) - 1);
  Worker worker = {.arguments = arguments, .comm = "long", .directory = "/"};
  return start_worker(&worker) < 0 ? -1 : 0;
}

static int make_title(void) {
  char* arguments[] = {"before", "its", "title", NULL};
  Worker worker = {.arguments = arguments, .comm = "retitled", .directory = "/", .retitle = 1};
  return start_worker(&worker) < 0 ? -1 : 0;
}

// ---- names ----

static const char* const names[] = {
    "a b (c) d",
    ")",
    "(((",
    "new\nline",
    "\033[2J\033[Hcls",
    "\xff\xfe\xc3(",
    "fifteen-bytes-x",
    "back\\slash\\n",
    "tab\tcr\rbell\a",
    "\xe2\x82\xac euro",
    "x) R 1 1 1",
};

static int bear_name(int number) { return prctl(PR_SET_NAME, names[number]); }

// ---- rights and ranks ----

static int be_three_people(int unused) {
  (void)unused;
  static const gid_t groups[] = {7, 8, 9};
  prctl(PR_SET_NAME, "three people");
  return setgroups(COUNT(groups), groups) || setresgid(11, 12, 13) || setresuid(21, 22, 23) ? -1
                                                                                            : 0;
}

static int have_rank(int rank) {
  static const struct {
    const char* name;
    int policy, priority, nice;
  } ranks[] = {
      {"first", SCHED_OTHER, 0, -20},  {"last", SCHED_OTHER, 0, 19}, {"fifo", SCHED_FIFO, 50, 0},
      {"round robin", SCHED_RR, 1, 0}, {"batch", SCHED_BATCH, 0, 5}, {"idle", SCHED_IDLE, 0, 0},
  };
  prctl(PR_SET_NAME, ranks[rank].name);
  struct sched_param parameter = {.sched_priority = ranks[rank].priority};
  return setpriority(PRIO_PROCESS, 0, ranks[rank].nice) ||
         sched_setscheduler(0, ranks[rank].policy, &parameter);
}

// ---- states ----

static int keep_stopped(int traced) {
  pid_t pid = fork();
  if (pid == 0) {
    become_actor();
    prctl(PR_SET_NAME, traced ? "traced" : "stopped");
    if (traced) ptrace(PTRACE_TRACEME);
    raise(SIGSTOP);
    sleep_for_ever();
  }
  siginfo_t info;
  return pid < 0 ? -1 : waitid(P_PID, pid, &info, WSTOPPED | WNOWAIT);
}

// Whoever called vfork sleeps without hearing signals (D) until the child runs another program or ends.
static void __attribute__((noreturn)) block_in_vfork(void) {
  prctl(PR_SET_NAME, "blocked");
  if (vfork() == 0)
    for (;;) pause();
  _exit(1);
}

static bool is_blocked(pid_t pid) {
  char path[64], stat[256] = "";
  snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t size = read(fd, stat, sizeof(stat) - 1);
  close(fd);
  return size > 0 && strstr(stat, ") D ");
}

static int keep_blocked(int unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0) {
    become_actor();
    block_in_vfork();
  }
  for (int attempt = 0; pid > 0 && attempt < 5000; attempt++) {
    if (is_blocked(pid)) return 0;
    poll(NULL, 0, 1);
  }
  errno = ETIMEDOUT;
  return -1;
}

int make_odd(void) {
  static const struct {
    int (*body)(int);
    int variants;
  } actors[] = {
      {live_in_jail, 1}, {live_nowhere, 1}, {bear_name, COUNT(names)}, {be_three_people, 1},
      {have_rank, 6},    {keep_stopped, 2}, {keep_blocked, 1},
  };
  for (size_t i = 0; i < COUNT(actors); i++)
    for (int variant = 0; variant < actors[i].variants; variant++)
      if (spawn(actors[i].body, variant) < 0) return -1;
  return make_deleted_program() || make_long_arguments() || make_title() ? -1 : 0;
}
