// Workers: a new program each, so that comm, cmdline, maps, files and credentials differ.
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "puppet.h"

static const char* const odd_names[] = {
    "plain",   "many args", "\033[31mred\033[0m", "\xff\xfe\x80odd",
    "threads", "somebody",  ") S (x\ny",          "",
};

Worker draw_worker(void) {
  static int number = -1;
  static char first[64], long_argument[2048], directory[32];
  static char* arguments[64];
  int kind = ++number % COUNT(odd_names);
  Worker worker = {.arguments = arguments, .directory = directory};
  snprintf(first, sizeof(first), "/opt/%s/worker", kind == 6 ? "x y" : odd_names[kind]);
  memset(long_argument, 'a' + number % 26, sizeof(long_argument) - 1);
  memset(arguments, 0, sizeof(arguments));
  arguments[0] = kind == 7 ? "" : first;
  if (kind == 1)
    for (int i = 1; i < 60; i++)
      arguments[i] = i % 20 == 0 ? long_argument : i % 3 ? "--option=value" : "";
  else
    arguments[1] = (char*)odd_names[kind], arguments[2] = "last";
  snprintf(worker.comm, sizeof(worker.comm), "%.7s-%d", odd_names[kind], number);
  snprintf(directory, sizeof(directory), kind == 0 ? "/" : "/tmp/worker-%d", number);
  worker.threads = kind == 4 ? 3 : 1;
  worker.uid = worker.euid = kind == 5 ? 1000 + number : 0;
  if (kind == 6) worker.uid = 2000, worker.euid = 2001;
  return worker;
}

const char* own_program(void) {
  static char program[256];
  if (!program[0] && readlink("/proc/self/exe", program, sizeof(program) - 1) < 0) return "/init";
  return program;
}

static int become_worker(const Worker* worker) {
  char settings[128], comm[32];
  char* environment[] = {settings, comm, "HOME=/", NULL};
  const char* program = worker->program ? worker->program : own_program();
  fcntl(ready_pipe, F_SETFD, 0);
  snprintf(settings, sizeof(settings), "PUPPET_READY=%d %d %d %d %d", ready_pipe, worker->threads,
           worker->files, worker->areas, worker->retitle);
  snprintf(comm, sizeof(comm), "PUPPET_COMM=%s", worker->comm);
  mkdir(worker->directory, 0777);
  if (chdir(worker->directory) < 0 || setresgid(worker->uid, worker->euid, worker->euid) < 0 ||
      setresuid(worker->uid, worker->euid, worker->euid) < 0)
    return -1;
  execve(program, worker->arguments, environment);
  return -1;
}

static void* idle(void* name) {
  prctl(PR_SET_NAME, name);
  sleep_for_ever();
}

// As daemons do that show their status in ps: arguments and environment lie in a row on the stack;
// a title without a zero byte at the arguments' end goes on to the first one after it.
static void retitle(char** arguments) {
  static const char more[] = "and into the environment";
  char** last = arguments;
  while (last[1]) last++;
  char* end = *last + strlen(*last) + 1;
  memset(arguments[0], 't', end - arguments[0]);
  memcpy(end, more, sizeof(more));
}

void play_worker(char** arguments) {
  int threads = 1, files = 0, areas = 0, new_title = 0;
  sscanf(getenv("PUPPET_READY"), "%d %d %d %d %d", &ready_pipe, &threads, &files, &areas,
         &new_title);
  prctl(PR_SET_NAME, getenv("PUPPET_COMM"));
  if (new_title) retitle(arguments);
  int result = open_files(files) || map_areas(areas);
  for (int i = 1; i < threads && result == 0; i++) {
    pthread_t thread;
    result = pthread_create(&thread, NULL, idle, "helper");
  }
  tell_ready(result);
  sleep_for_ever();
}

pid_t start_worker(const Worker* worker) {
  pid_t pid = fork_actor();
  if (pid == 0) {
    tell_ready(become_worker(worker));
    _exit(1);
  }
  return pid;
}

int make_workers(int count) {
  for (int i = 0; i < count; i++) {
    Worker worker = draw_worker();
    if (start_worker(&worker) < 0) return -1;
  }
  channel_print("%d workers\n", count);
  return 0;
}
