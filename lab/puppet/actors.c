// Scenes made of processes.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

static void __attribute__((noreturn)) sleep_for_ever(void)
{
    for (;;)
        pause();
}

static void become_child(void)
{
    signal(SIGCHLD, SIG_DFL);
    channel_close();
}

// The scene stands when the child has written its byte; a child that dies closes the pipe.
static int wait_ready(int fd)
{
    char byte;
    ssize_t size;
    do
        size = read(fd, &byte, 1);
    while (size < 0 && errno == EINTR);
    errno = byte && size == 1 ? byte : ECHILD;
    return size == 1 && byte == 0 ? 0 : -1;
}

static void tell_ready(int fd, int result)
{
    char byte = result == 0 ? 0 : errno ? errno : ECHILD;
    if (write(fd, &byte, 1) != 1 || result != 0)
        _exit(1);
    close(fd);
}

pid_t spawn(int (*body)(int), int argument)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        become_child();
        close(ready[0]);
        int result = body(argument);
        tell_ready(ready[1], result);
        sleep_for_ever();
    }
    close(ready[1]);
    int result = pid < 0 ? -1 : wait_ready(ready[0]);
    int error = errno;
    close(ready[0]);
    errno = error;
    return result < 0 ? -1 : pid;
}

// ---- workers: a new program each, so that comm, cmdline and maps differ ----

typedef struct {
    char **arguments;
    char comm[16];
    char directory[32];
    int threads, files, areas;
    uid_t uid, euid;
} Worker;

static const char *const odd_names[] = {
    "plain", "many args", "\033[31mred\033[0m", "\xff\xfe\x80odd", "threads", "somebody", ") S (x\ny", "",
};

static Worker draw_worker(int number)
{
    static char first[64], long_argument[2048];
    static char *arguments[64];
    int kind = number % COUNT(odd_names);
    Worker worker = {.arguments = arguments};
    snprintf(first, sizeof(first), "/opt/%s/worker", kind == 6 ? "x y" : odd_names[kind]);
    memset(long_argument, 'a' + number % 26, sizeof(long_argument) - 1);
    memset(arguments, 0, sizeof(arguments));
    arguments[0] = kind == 7 ? "" : first;
    if (kind == 1)
        for (int i = 1; i < 60; i++)
            arguments[i] = i % 20 == 0 ? long_argument : i % 3 ? "--option=value" : "";
    else
        arguments[1] = (char *)odd_names[kind], arguments[2] = "last";
    snprintf(worker.comm, sizeof(worker.comm), "%.7s-%d", odd_names[kind], number);
    snprintf(worker.directory, sizeof(worker.directory), kind == 0 ? "/" : "/tmp/worker-%d", number);
    worker.threads = kind == 4 ? 3 : 1;
    worker.uid = worker.euid = kind == 5 ? 1000 + number : 0;
    if (kind == 6)
        worker.uid = 2000, worker.euid = 2001;
    return worker;
}

static char worker_settings[128];  // how a worker's new program learns what to be

static int become_worker(const Worker *worker, int ready)
{
    char comm[32];
    char *environment[] = {worker_settings, comm, "HOME=/", NULL};
    fcntl(ready, F_SETFD, 0);
    snprintf(worker_settings, sizeof(worker_settings), "PUPPET_READY=%d %d %d %d", ready, worker->threads,
             worker->files, worker->areas);
    snprintf(comm, sizeof(comm), "PUPPET_COMM=%s", worker->comm);
    mkdir(worker->directory, 0777);
    if (chdir(worker->directory) < 0 || setresgid(worker->uid, worker->euid, worker->euid) < 0 ||
        setresuid(worker->uid, worker->euid, worker->euid) < 0)
        return -1;
    execve("/init", worker->arguments, environment);
    return -1;
}

static void *idle(void *name)
{
    prctl(PR_SET_NAME, name);
    sleep_for_ever();
}

void play_worker(void)
{
    int ready = -1, threads = 1, files = 0, areas = 0;
    sscanf(getenv("PUPPET_READY"), "%d %d %d %d", &ready, &threads, &files, &areas);
    prctl(PR_SET_NAME, getenv("PUPPET_COMM"));
    int result = open_files(files) || map_areas(areas);
    for (int i = 1; i < threads && result == 0; i++) {
        pthread_t thread;
        result = pthread_create(&thread, NULL, idle, "helper");
    }
    tell_ready(ready, result);
    sleep_for_ever();
}

static int start_worker(const Worker *worker)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        become_child();
        tell_ready(ready[1], become_worker(worker, ready[1]));
        _exit(1);
    }
    close(ready[1]);
    int result = pid < 0 ? -1 : wait_ready(ready[0]);
    close(ready[0]);
    return result;
}

static int next_worker;

int make_workers(int count)
{
    for (int i = 0; i < count; i++) {
        Worker worker = draw_worker(next_worker++);
        if (start_worker(&worker) < 0)
            return -1;
    }
    channel_print("%d workers\n", count);
    return 0;
}

// ---- crowds ----

int make_processes(int count)
{
    int ready[2], made = 0;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -1;
    for (; made < count; made++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            become_child();
            close(ready[0]);
            tell_ready(ready[1], 0);
            sleep_for_ever();
        }
    }
    int error = errno;
    close(ready[1]);
    for (int i = 0; i < made; i++)
        if (wait_ready(ready[0]) < 0)
            break;
    close(ready[0]);
    channel_print("%d of %d processes\n", made, count);
    errno = error;
    return made == count ? 0 : -1;
}

static int keep_zombies(int count)
{
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return -1;
        if (pid == 0)
            _exit(i);
        siginfo_t info;  // dead, but still there: WNOWAIT
        waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    }
    return 0;
}

int make_zombies(int count)
{
    return spawn(keep_zombies, count) < 0 ? -1 : 0;
}

static int storm(int ready)
{
    tell_ready(ready, 0);
    char *arguments[] = {"true", NULL};
    for (;;) {
        pid_t pid = fork();
        if (pid == 0) {
            execv("/bin/busybox", arguments);
            _exit(1);
        }
        waitpid(pid, NULL, 0);
    }
}

int fork_storm(bool on)
{
    static pid_t pid;
    if (!on || pid > 0) {
        if (pid > 0)
            kill(pid, SIGKILL);
        pid = 0;
    }
    if (!on)
        return 0;
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        become_child();
        prctl(PR_SET_NAME, "storm");
        storm(ready[1]);
    }
    close(ready[1]);
    int result = wait_ready(ready[0]);
    close(ready[0]);
    return result;
}

// ---- namespaces ----

static int live_in_netns(int unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "netns");
    return unshare(CLONE_NEWNET) || bring_up("lo") || open_sockets(1) ? -1 : 0;
}

int make_netns(void)
{
    return spawn(live_in_netns, 0) < 0 ? -1 : 0;
}

static int enter_new_root(const char *root)
{
    mkdir(root, 0755);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("container", root, "tmpfs", 0, "size=4m") ||
        chdir(root) || mkdir("proc", 0755) || mkdir("tmp", 01777) || mkdir("old", 0755) ||
        mkdir("data", 0755) || mount("/tmp", "data", NULL, MS_BIND, NULL) ||
        syscall(SYS_pivot_root, ".", "old") || chdir("/") || mount("proc", "/proc", "proc", MS_NOSUID, NULL) ||
        umount2("/old", MNT_DETACH))
        return -1;
    return 0;
}

static int live_in_container(int number)
{
    char name[32];
    snprintf(name, sizeof(name), "container-%d", number);
    prctl(PR_SET_NAME, name);
    sethostname(name, strlen(name));
    snprintf(name, sizeof(name), "/run/container-%d", number);
    if (enter_new_root(name) || bring_up("lo") || open_files(5) || open_sockets(1))
        return -1;
    return spawn(open_files, 3) < 0 ? -1 : 0;  // and somebody who is not its init
}

static int start_container(int number)
{
    prctl(PR_SET_NAME, "container-shim");
    if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC))
        return -1;
    return spawn(live_in_container, number) < 0 ? -1 : 0;
}

int make_container(void)
{
    static int number;
    return spawn(start_container, ++number) < 0 ? -1 : 0;
}

// ---- the reference guest ----

static int hold_sockets(int sets)
{
    prctl(PR_SET_NAME, "sockets");
    return open_sockets(sets);
}

int make_reference(void)
{
    for (int i = 0; i < 116; i++) {
        Worker worker = draw_worker(next_worker++);
        worker.files = 12;
        worker.areas = 3;
        if (i % 4 == 0)
            worker.threads = 3;
        if (start_worker(&worker) < 0)
            return -1;
    }
    return spawn(hold_sockets, 4) < 0 || make_special() || make_maps() || make_container() ? -1 : 0;
}

void quiet(void)
{
    fork_storm(false);
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}
