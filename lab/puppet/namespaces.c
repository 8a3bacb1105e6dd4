// Scenes of namespaces: network, containers, users.
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

static int live_in_netns(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "netns");
  return unshare(CLONE_NEWNET) || bring_up("lo") || open_sockets(1) ? -1 : 0;
}

int make_netns(void) { return spawn(live_in_netns, 0) < 0 ? -1 : 0; }

static int enter_new_root(const char* root) {
  mkdir(root, 0755);
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
      mount("container", root, "tmpfs", 0, "size=4m") || chdir(root) || mkdir("proc", 0755) ||
      mkdir("tmp", 01777) || mkdir("old", 0755) || mkdir("data", 0755) ||
      mount("/tmp", "data", NULL, MS_BIND, NULL) || syscall(SYS_pivot_root, ".", "old") ||
      chdir("/") || mount("proc", "/proc", "proc", MS_NOSUID, NULL) || umount2("/old", MNT_DETACH))
    return -1;
  return 0;
}

static int live_in_container(int number) {
  char name[32];
  snprintf(name, sizeof(name), "container-%d", number);
  prctl(PR_SET_NAME, name);
  sethostname(name, strlen(name));
  snprintf(name, sizeof(name), "/run/container-%d", number);
  if (enter_new_root(name) || bring_up("lo") || open_files(5) || open_sockets(1)) return -1;
  return spawn(open_files, 3) < 0 ? -1 : 0;  // and somebody who is not its init
}

static int start_container(int number) {
  prctl(PR_SET_NAME, "container-shim");
  if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)) return -1;
  return spawn(live_in_container, number) < 0 ? -1 : 0;
}

int make_container(void) {
  static int number;
  return spawn(start_container, ++number) < 0 ? -1 : 0;
}

// ---- users ----

static int write_map(pid_t pid, const char* name) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  ssize_t size = write(fd, "0 5000 100", 10);
  close(fd);
  return size == 10 ? 0 : -1;
}

// Only somebody outside of a user namespace may map ids of the outside into it.
static pid_t start_mapper(int wait_for) {
  pid_t pid = fork();
  if (pid == 0) {
    become_actor();
    char byte;
    bool told = read(wait_for, &byte, 1) == 1;
    _exit(!told || write_map(getppid(), "uid_map") || write_map(getppid(), "gid_map"));
  }
  return pid;
}

static int live_in_userns(int unused) {
  (void)unused;
  int pipe[2], status = -1;
  prctl(PR_SET_NAME, "userns");
  if (pipe2(pipe, O_CLOEXEC)) return -1;
  pid_t mapper = start_mapper(pipe[0]);
  if (mapper < 0 || unshare(CLONE_NEWUSER) || write(pipe[1], "", 1) != 1 ||
      waitpid(mapper, &status, 0) < 0)
    return -1;
  close(pipe[0]);
  close(pipe[1]);
  return status || setresgid(1, 2, 3) || setresuid(4, 5, 6) ? -1 : 0;
}

int make_userns(void) { return spawn(live_in_userns, 0) < 0 ? -1 : 0; }
