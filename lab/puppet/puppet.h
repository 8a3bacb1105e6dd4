// The puppet: a lab guest's own program. It obeys text commands that arrive over a virtio port,
// and tells the guest's own view of itself. It is /init and the guest's only program, or a service
// (`puppet serve`) of a whole distribution.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// ---- channel.c: the line to the host ----

// Opens the port; returns only with a line that works. Prints to the console if there is none.
void channel_open(void);
// The next command, without its newline.
char* channel_line(void);
// Payload of the answer, sent as it grows; then exactly one of channel_ok/channel_error.
void channel_write(const void* data, size_t size);
void channel_print(const char* format, ...) __attribute__((format(printf, 1, 2)));
void channel_ok(void);
void channel_error(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Bypasses the framing: lets a host that reconnects find its place in the stream.
void channel_hello(const char* token);
void channel_close(void);  // for children: the line is init's alone

// ---- setup.c: what an init does ----

void setup_mounts(void);
void setup_modules(void);
int setup_module(const char* name);  // 0 or -errno
void setup_network(void);
void setup_programs(void);
int bring_up(const char* device);

// ---- proc.c: reading /proc ----

typedef struct {
  int processes, threads, files, sockets, maps;
} Census;

// The numbers that are names in a directory, sorted; the caller frees them. The directory is closed
// again by then, so that it is not among the open files that are looked at.
int* numbers_in(const char* path, int* count);
Census count_process(int pid);
Census count_all(void);
Census add_census(Census a, Census b);

// ---- report.c ----

void report(void);

// The scenes: all return 0, or -1 with errno.

// ---- actors.c: the ways to start a process ----

// Forks. Returns in the child at once, with 0, which then has to tell_ready; in the parent when the
// child has told, with its PID or -1.
pid_t fork_actor(void);
extern int ready_pipe;        // of an actor that has not told yet, else -1
void tell_ready(int result);  // exits if the result is not 0
void become_actor(void);      // after any other fork: gives up what is the parent's alone
void sleep_for_ever(void) __attribute__((noreturn));
// Starts a process that runs body(argument), after which spawn returns, and sleeps for ever.
pid_t spawn(int (*body)(int), int argument);

// ---- workers.c: a new program each ----

typedef struct {
  const char* program;  // NULL: the puppet's own
  char** arguments;
  char comm[16];
  const char* directory;  // made if it is not there
  int threads, files, areas;
  int retitle;  // overwrite the arguments, and some of the environment after them
  uid_t uid, euid;
} Worker;

Worker draw_worker(void);
pid_t start_worker(const Worker* worker);
void play_worker(char** arguments) __attribute__((noreturn));  // main of a worker, after its exec
const char* own_program(void);
int make_workers(int count);

// ---- crowds.c, namespaces.c, odd.c, threads.c, reference.c: scenes made of processes ----

int make_processes(int count);
int make_zombies(int count);
int fork_storm(bool on);
int make_container(void);
int make_netns(void);
int make_userns(void);
int make_bpf(void);
int make_odd(void);
int make_threads(void);
int make_reference(void);
void quiet(void);  // ends all that scenes have started

// ---- churn.c: change without end ----

int churn(const char* kind);  // fork, exec, threads, sockets, files, maps; "off" ends it

// ---- calls.c: what detectors wait for ----

int call(const char* name);  // in a process of its own; prints its PID and what became of it
// Starts a process that does not get on, on that CPU, after that time; prints its PID.
int stick(const char* name, int cpu, int delay_s);

// ---- prepared.c: what a kernel that is mended does not let happen ----

int prepare(const char* name);  // half a call, and the rest on a sign; prints its PID

// ---- crash.c ----

int load_crash_kernel(const char* command_line);  // from /dev/vda

// ---- work.c: fixed amounts of work, timed ----

int run_work(char* line);   // KIND AMOUNT [ARGUMENT]
int work_here(char* line);  // in this process, which may not survive it

// ---- told.c: calls of functions for probes of user programs ----

long told_call(long number, const char* text);
void tell_call(long number);  // calls it, and prints what it passed
int forge_traps(long traps);  // what a probe's trap looks like, where none is

// ---- files.c, sockets.c: scenes inside one process ----

int make_files(int count);
int make_special(void);
int make_maps(void);
int make_sockets(void);
int open_files(int count);
int map_areas(int count);
int open_sockets(int sets);        // of two dozen sockets each
int open_more_sockets(int count);  // plain ones, exactly so many
