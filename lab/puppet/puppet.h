// The puppet: the only program of a lab guest. It is /init, obeys text commands that
// arrive over a virtio port, and tells the guest's own view of itself.
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
char *channel_line(void);
// Payload of the answer, sent as it grows; then exactly one of channel_ok/channel_error.
void channel_write(const void *data, size_t size);
void channel_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void channel_ok(void);
void channel_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Bypasses the framing: lets a host that reconnects find its place in the stream.
void channel_hello(const char *token);
void channel_close(void);  // for children: the line is init's alone

// ---- setup.c: what an init does ----

void setup_mounts(void);
void setup_modules(void);
int setup_module(const char *name);  // 0 or -errno
void setup_network(void);
int bring_up(const char *device);

// ---- report.c ----

void report(void);

// ---- actors.c: scenes made of processes; all return 0, or -1 with errno ----

// Starts a process that runs body(argument), after which spawn returns, and sleeps for ever.
pid_t spawn(int (*body)(int), int argument);
void play_worker(void) __attribute__((noreturn));  // main of a worker, after its exec
int make_workers(int count);
int make_processes(int count);
int make_zombies(int count);
int make_container(void);
int make_netns(void);
int make_reference(void);
int fork_storm(bool on);
void quiet(void);  // ends all that scenes have started

// ---- files.c, sockets.c: scenes inside one process ----

int make_files(int count);
int make_special(void);
int make_maps(void);
int make_sockets(void);
int open_files(int count);
int map_areas(int count);
int open_sockets(int sets);  // of two dozen sockets each
