// How scenes start processes, know that they stand, and end them.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

void sleep_for_ever(void) {
  for (;;) pause();
}

int ready_pipe = -1;

// The scene stands when the child has written its byte and closed the pipe; one that dies only closes it.
static int wait_ready(int fd) {
  char byte, told = 0;
  ssize_t size;
  int answers = 0;
  while ((size = read(fd, &byte, 1)) > 0 || (size < 0 && errno == EINTR))
    if (size > 0) answers++, told |= byte;
  errno = answers ? told : ECHILD;
  return answers && !told ? 0 : -1;
}

void tell_ready(int result) {
  char byte = result == 0 ? 0 : errno ? errno : ECHILD;
  if (write(ready_pipe, &byte, 1) != 1 || result != 0) _exit(1);
  close(ready_pipe);
  ready_pipe = -1;
}

void become_actor(void) {
  signal(SIGCHLD, SIG_DFL);
  channel_close();
  if (ready_pipe >= 0) close(ready_pipe);
  ready_pipe = -1;
}

pid_t fork_actor(void) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return -1;
  pid_t pid = fork();
  if (pid == 0) {
    become_actor();
    close(ends[0]);
    ready_pipe = ends[1];
    return 0;
  }
  close(ends[1]);
  int result = pid < 0 ? -1 : wait_ready(ends[0]);
  int error = errno;
  close(ends[0]);
  errno = error;
  return result < 0 ? -1 : pid;
}

pid_t spawn(int (*body)(int), int argument) {
  pid_t pid = fork_actor();
  if (pid == 0) {
    tell_ready(body(argument));
    sleep_for_ever();
  }
  return pid;
}

static bool bury_children(void) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
  FILE* list = fopen(path, "re");
  int *children = NULL, count = 0;
  for (int pid; list && fscanf(list, "%d", &pid) == 1; children[count++] = pid)
    if (count % 1024 == 0) children = realloc(children, (count + 1024) * sizeof(int));
  if (list) fclose(list);
  for (int i = 0; i < count; i++) kill(children[i], SIGKILL);
  for (int i = 0; i < count; i++) waitpid(children[i], NULL, 0);
  free(children);
  return count > 0;
}

// Our children are all that scenes started, and the orphans among that: orphans come to us, be it
// because we are PID 1 or because we asked for them.
void quiet(void) {
  fork_storm(false);
  while (bury_children())
    ;
}
