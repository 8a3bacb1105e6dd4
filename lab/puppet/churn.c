// Change without end: of one kind, by two processes, as fast as the guest can.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

static void fork_once(void) {
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  waitpid(pid, NULL, 0);
}

static void execute_once(void) {
  pid_t pid = fork();
  if (pid == 0) {
    execl("/bin/busybox", "true", (char*)NULL);
    _exit(1);
  }
  waitpid(pid, NULL, 0);
}

static void* end_at_once(void* unused) { return unused; }

static void have_a_thread(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, end_at_once, NULL) == 0) pthread_join(thread, NULL);
}

static void have_sockets(void) {
  int pair[2], one = socket(AF_INET, SOCK_STREAM, 0);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
    close(pair[0]);
    close(pair[1]);
  }
  close(one);
}

static void have_files(void) {
  int files[8];
  for (int i = 0; i < 8; i++)
    files[i] = i % 2 ? open("/bin/busybox", O_RDONLY) : open("/tmp/churn", O_RDWR | O_CREAT, 0600);
  for (int i = 0; i < 8; i++) close(files[i]);
  unlink("/tmp/churn");
}

static void have_maps(void) {
  char* maps[8];
  for (int i = 0; i < 8; i++) {
    maps[i] = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (maps[i] != MAP_FAILED) mprotect(maps[i] + 4096, 4096, PROT_READ);  // three maps of one
  }
  for (int i = 0; i < 8; i++) {
    if (maps[i] != MAP_FAILED) munmap(maps[i], 3 * 4096);
  }
}

static const struct {
  const char* name;
  void (*once)(void);
} kinds[] = {{"fork", fork_once},       {"exec", execute_once}, {"threads", have_a_thread},
             {"sockets", have_sockets}, {"files", have_files},  {"maps", have_maps}};

static int begin(void (*once)(void)) {
  pid_t pid = fork_actor();
  if (pid != 0) return pid < 0 ? -1 : pid;
  prctl(PR_SET_NAME, "churn");
  tell_ready(0);
  for (;;) once();
}

int churn(const char* kind) {
  static pid_t workers[2];
  for (int i = 0; i < 2; i++) {
    if (workers[i] > 0) kill(workers[i], SIGKILL);
    workers[i] = 0;
  }
  if (!strcmp(kind, "off")) return 0;
  for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
    if (strcmp(kind, kinds[k].name)) continue;
    for (int i = 0; i < 2; i++) {
      if ((workers[i] = begin(kinds[k].once)) < 0) return -1;
    }
    return 0;
  }
  errno = EINVAL;
  return -1;
}
