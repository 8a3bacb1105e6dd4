// Crowds: many processes at once, dead ones, and forks without end.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

// Its members do as little as can be, for there are many. Each closes the pipe that tells that the
// crowd is ready, so it is not before the last of them sleeps.
static int gather_crowd(int count) {
  prctl(PR_SET_NAME, "crowd");
  for (int i = 0; i < count; i++) {
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) {
      close(ready_pipe);
      sleep_for_ever();
    }
  }
  return 0;
}

int make_processes(int count) { return spawn(gather_crowd, count) < 0 ? -1 : 0; }

static int keep_zombies(int count) {
  for (int i = 0; i < count; i++) {
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) _exit(i);
    siginfo_t info;  // dead, but still there: WNOWAIT
    waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
  }
  return 0;
}

int make_zombies(int count) { return spawn(keep_zombies, count) < 0 ? -1 : 0; }

static void __attribute__((noreturn)) storm(void) {
  tell_ready(0);
  char* arguments[] = {"true", NULL};
  for (;;) {
    pid_t pid = fork();
    if (pid == 0) {
      execv("/bin/busybox", arguments);
      execv("/bin/true", arguments);
      _exit(1);
    }
    waitpid(pid, NULL, 0);
  }
}

int fork_storm(bool on) {
  static pid_t pid;
  if (!on || pid > 0) {
    if (pid > 0) kill(pid, SIGKILL);
    pid = 0;
  }
  if (!on) return 0;
  pid = fork_actor();
  if (pid == 0) {
    prctl(PR_SET_NAME, "storm");
    storm();
  }
  return pid < 0 ? -1 : 0;
}
