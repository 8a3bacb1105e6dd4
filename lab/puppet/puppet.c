// The program: sets the guest up if it is its init, then serves the host's commands.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

typedef struct {
  const char* name;
  const char* usage;
  int (*run)(char* argument);  // 0, -1 with errno, or 1 if it has answered itself
} Command;

static int number(const char* argument, int otherwise) {
  int value = argument && *argument ? atoi(argument) : otherwise;
  return value > 0 ? value : otherwise;
}

static int run_report(char* argument) {
  (void)argument;
  report();
  return 0;
}
static int run_workers(char* argument) { return make_workers(number(argument, 10)); }
static int run_processes(char* argument) { return make_processes(number(argument, 1000)); }
static int run_zombies(char* argument) { return make_zombies(number(argument, 1)); }
static int run_files(char* argument) { return make_files(number(argument, 100)); }
static int run_maps(char* argument) {
  (void)argument;
  return make_maps();
}
static int run_sockets(char* argument) {
  (void)argument;
  return make_sockets();
}
static int run_special(char* argument) {
  (void)argument;
  return make_special();
}
static int run_container(char* argument) {
  (void)argument;
  return make_container();
}
static int run_netns(char* argument) {
  (void)argument;
  return make_netns();
}
static int run_userns(char* argument) {
  (void)argument;
  return make_userns();
}
static int run_odd(char* argument) {
  (void)argument;
  return make_odd();
}
static int run_bpf(char* argument) {
  (void)argument;
  return make_bpf();
}
static int run_threads(char* argument) {
  (void)argument;
  return make_threads();
}
static int run_reference(char* argument) {
  (void)argument;
  return make_reference();
}
static int run_quiet(char* argument) {
  (void)argument;
  quiet();
  return 0;
}

static int run_fork_storm(char* argument) {
  return fork_storm(!argument || strcmp(argument, "off") != 0);
}

static int run_churn(char* argument) { return churn(argument ? argument : ""); }

static int run_module(char* argument) {
  int error = setup_module(argument ? argument : "");
  errno = -error;
  return error ? -1 : 0;
}

static int run_shell(char* argument);

static int run_script(const char* name) {
  char line[128];
  snprintf(line, sizeof(line), "/etc/%s.sh", name);
  if (access(line, R_OK) < 0) return -1;
  snprintf(line, sizeof(line), "sh /etc/%s.sh 2>&1", name);
  return run_shell(line);
}

// Not every kernel has every module.
static int run_network(char* argument) {
  (void)argument;
  static const char* const modules[] = {"bridge",  "dummy", "veth", "tun",
                                        "macvlan", "8021q", "ipip", "sit"};
  for (size_t i = 0; i < COUNT(modules); i++) setup_module(modules[i]);
  return run_script("network");
}

static int run_mounts(char* argument) {
  (void)argument;
  return run_script("mounts");
}

static int run_cgroups(char* argument) {
  (void)argument;
  return run_script("cgroups");
}

static int run_overlay(char* argument) {
  (void)argument;
  setup_module("overlay");
  return run_script("overlay");
}

static int run_log(char* argument) {
  // A line without its end may be joined with the next one.
  char line[1024];
  int length = snprintf(line, sizeof line - 1, "%s", argument ? argument : "");
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
  ssize_t written = fd < 0 ? -1 : write(fd, line, (size_t)length);
  int error = errno;
  close(fd);
  errno = error;
  return written < 0 ? -1 : 0;
}

// Hot-plugged memory is offline until somebody says otherwise.
static int run_online(char* argument) {
  (void)argument;
  return system(
             "for f in /sys/devices/system/memory/memory*/state; do"
             " case $(cat $f) in offline) echo online > $f;; esac; done")
             ? -1
             : 0;
}

static int run_shell(char* argument) {
  char output[4096];
  sigset_t child, before;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, &before);  // pclose wants to bury it itself
  FILE* shell = popen(argument ? argument : "", "re");
  for (size_t size; shell && (size = fread(output, 1, sizeof(output), shell)) > 0;)
    channel_write(output, size);
  int status = shell ? pclose(shell) : -1;
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (status == 0) return 0;
  channel_error("sh: exit status %d", WEXITSTATUS(status));
  return 1;
}

static int run_reboot(char* argument) {
  (void)argument;
  channel_ok();
  sync();
  return reboot(RB_AUTOBOOT);
}

static int run_poweroff(char* argument) {
  (void)argument;
  channel_ok();
  return reboot(RB_POWER_OFF);
}

static int run_call(char* argument) { return call(argument ? argument : ""); }

static int run_prepare(char* argument) { return prepare(argument ? argument : ""); }

static int run_stick(char* argument) {
  char* name = strsep(&argument, " ");
  char* cpu = strsep(&argument, " ");
  return stick(name ? name : "", cpu ? atoi(cpu) : 0, argument ? atoi(argument) : 0);
}

static int run_crash_kernel(char* argument) { return load_crash_kernel(argument ? argument : ""); }

static int run_crash(char* argument) {
  (void)argument;
  const int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
  if (trigger < 0) return -1;
  channel_ok();
  return write(trigger, "c", 1) == 1 ? 0 : -1;
}

static int run_help(char* argument);

static const Command commands[] = {
    {"report", "the guest's own view, as an archive", run_report},
    {"workers", "N: sleeping processes, some with threads, all a little different", run_workers},
    {"processes", "N: as many cheap processes", run_processes},
    {"files", "N: a process with N files open", run_files},
    {"maps", "a process with many kinds of mappings", run_maps},
    {"network", "network devices of many kinds, with addresses of every sort (--tools)",
     run_network},
    {"mounts", "mounts that propagate, file systems with options (--tools)", run_mounts},
    {"cgroups", "control groups of both kinds, with limits (--tools)", run_cgroups},
    {"overlay", "an overlay of two lower directories (--tools)", run_overlay},
    {"sockets", "a process with sockets of all families and states", run_sockets},
    {"special", "a process with everything that is not a plain file", run_special},
    {"container", "a process in new pid, mount, net and uts namespaces", run_container},
    {"netns", "a process in a network namespace of its own", run_netns},
    {"userns", "a process in a user namespace", run_userns},
    {"odd", "processes in rare states, places, ranks, with rare names and arguments", run_odd},
    {"threads", "processes whose threads differ: in files, directories, rights, life", run_threads},
    {"bpf", "a process with programs of BPF: filters, and one at a kernel function", run_bpf},
    {"fork-storm", "on|off: fork and exec without end", run_fork_storm},
    {"churn", "fork|exec|threads|sockets|files|maps|off: that without end, by two processes",
     run_churn},
    {"zombies", "N: processes that are dead but not buried", run_zombies},
    {"reference",
     "what benchmarks read: at least 156 processes, 186 threads, 1325 files, 1380 maps",
     run_reference},
    {"work",
     "memory|disk|network|churn|jitter|clip|calls|getppid|told|forge N [ARGUMENT]: so much work, "
     "and how long it took",
     run_work},
    {"call",
     "NAME: a call that only attacks make, harmless where it was mended; its PID and result",
     run_call},
    {"prepare",
     "dirty-pipe|gigabyte-line|tls-listen: half a call (see /tmp/NAME.ready), the rest on "
     "/tmp/NAME.go",
     run_prepare},
    {"stick",
     "vfork|real-time|acct|root|sent CPU SECONDS: a process for detectors, after that time",
     run_stick},
    {"module", "NAME: load a kernel module", run_module},
    {"log", "TEXT: a line in the kernel's log", run_log},
    {"online", "use hot-plugged memory", run_online},
    {"sh", "COMMAND: what it prints", run_shell},
    {"quiet", "end all that was started", run_quiet},
    {"crash-kernel", "ARGUMENTS: load the kernel on the disk, to run when this one crashes",
     run_crash_kernel},
    {"crash", "", run_crash},
    {"reboot", "warm reboot", run_reboot},
    {"poweroff", "", run_poweroff},
    {"help", "", run_help},
};

static int run_help(char* argument) {
  (void)argument;
  for (size_t i = 0; i < COUNT(commands); i++)
    channel_print("%-12s %s\n", commands[i].name, commands[i].usage);
  return 0;
}

static void obey(char* line) {
  char* argument = strchr(line, ' ');
  if (argument) *argument++ = 0;
  if (strcmp(line, "hello") == 0) {
    channel_hello(argument ? argument : "");
    return;
  }
  for (size_t i = 0; i < COUNT(commands); i++) {
    if (strcmp(commands[i].name, line) != 0) continue;
    int result = commands[i].run(argument);
    if (result == 0)
      channel_ok();
    else if (result < 0)
      channel_error("%s: %s", line, strerror(errno));
    return;
  }
  channel_error("%s: no such command (try help)", line);
}

// Orphans become ours. (The zombies of a scene have a parent of their own that never waits.)
static void bury(int signal) {
  (void)signal;
  int saved = errno;
  while (waitpid(-1, NULL, WNOHANG) > 0)
    ;
  errno = saved;
}

static void set_guest_up(void) {
  setup_mounts();
  setup_modules();
  setup_network();
  sethostname("vmlab", 5);
  setenv("PATH", "/bin", 1);
  setup_programs();
}

// puppet work KIND AMOUNT [ARGUMENT]: as the host's command, by a program of its own.
static int run_program(int count, char** words) {
  char line[256] = "";
  for (int i = 0; i < count; i++) {
    strncat(line, words[i], sizeof(line) - strlen(line) - 2);
    strcat(line, " ");
  }
  return work_here(line) < 0;
}

int main(int count, char** arguments) {
  if (count > 3 && strcmp(arguments[1], "work") == 0) return run_program(count - 2, arguments + 2);
  if (getenv("PUPPET_READY")) play_worker(arguments);
  if (getpid() == 1) {
    set_guest_up();
  } else if (count == 2 && strcmp(arguments[1], "serve") == 0) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
  } else {
    dprintf(2, "usage: puppet serve | work KIND AMOUNT [ARGUMENT] (or be PID 1)\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  sigaction(SIGCHLD, &(struct sigaction){.sa_handler = bury, .sa_flags = SA_RESTART}, NULL);
  channel_open();
  for (;;) obey(channel_line());
}
