/* Probes for other languages: the functions of probe.h's Prober, in plain C.
 *
 *     char why[256];
 *     vmsight_prober *prober = vmsight_prober_open("web1", "auto", why, sizeof why);
 *     vmsight_probe_request request = {.site = "kprobe:do_sys_openat2", .filter = "comm == cat", .handler = print};
 *     if (vmsight_prober_add(prober, &request, NULL) < 0) puts(vmsight_prober_error(prober));
 *     while (running) vmsight_prober_poll(prober, 100);
 *     vmsight_prober_close(prober);
 *
 * Functions that return int give -1 for an error, of which vmsight_prober_error() tells; it is valid
 * until the next call. Not thread safe. Closing disarms everything, and so does our death. */
#ifndef VMSIGHT_PROBE_C_H
#define VMSIGHT_PROBE_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vmsight_prober vmsight_prober;

/* An argument or a result. `text` is for people; `bytes` is a string of the guest, NULL if it is none. */
typedef struct vmsight_probe_argument {
  const char *name, *type, *text;
  int known, is_signed;
  uint64_t number;
  const char* bytes;
  size_t size;
  const char* names; /* of the number: flags, an enumerator, of a result its error; "" for none */
  const char* structure; /* "struct open_how" that it points to; "" for none */
  int unused;            /* the system call does not look at it, as the others are */
} vmsight_probe_argument;

/* What a handler gets; valid until it returns. */
typedef struct vmsight_probe_event {
  uint32_t probe;
  int at_return;
  uint64_t time_ns;     /* of the host's monotonic clock */
  uint64_t duration_ns; /* at a return: since the entry */
  uint32_t vcpu;
  int task_known;
  int32_t pid, tgid; /* thread and process */
  const char *comm, *function;
  const vmsight_probe_argument* arguments;
  size_t argument_count;
  const vmsight_probe_argument* result; /* NULL unless there is one */
  uint64_t general[16];                 /* rax rbx rcx rdx rsi rdi rsp rbp r8 ... r15 */
  uint64_t rip, rflags, cr3, gs_base;
  uint32_t known;      /* a bit for each of these twenty, in this order */
  void* memory;        /* for vmsight_probe_read() */
  int64_t system_call; /* its number, of the wrapper of one; else -1 */
} vmsight_probe_event;

typedef void (*vmsight_probe_handler)(const vmsight_probe_event* event, void* context);

typedef struct vmsight_probe_request {
  const char* site;     /* as `vmsight trace` takes it */
  const char* filter;   /* NULL: none */
  int32_t pid;          /* 0: any process */
  int counts_only;      /* the handler is not called */
  int standing;         /* it is called while the guest stands, where the engine can do that */
  uint64_t rate_limit;  /* events a second; 0: all */
  uint64_t storm_limit; /* hits a second from which on engine kvm disarms it; 0: the default */
  vmsight_probe_handler handler;
  void* context;
  const char*
      symbols_file; /* on the host: a copy of the user program, for its symbols; NULL: the guest's */
  int where_filter_fits; /* leave out sites whose function has nothing of a name in the filter */
} vmsight_probe_request;

typedef struct vmsight_probe_counts {
  uint64_t hits, filtered, told, lost, missed_returns, rate_limited, foreign;
  uint64_t durations[64]; /* of calls: [2^i, 2^(i+1)) ns */
  int stormed;            /* disarmed by the engine, because it was hit too often */
  uint64_t reloads;       /* of user functions: how often its page came and was only then probed */
} vmsight_probe_counts;

/* One place that a site stands for, valid until the function returns. */
typedef void (*vmsight_probe_place)(const char* site, uint64_t address, int32_t tgid,
                                    void* context);

/* NULL for an error, with the message in `error`. `vm` and `engine` as the command line takes them. */
vmsight_prober* vmsight_prober_open(const char* vm, const char* engine, char* error,
                                    size_t error_size);
void vmsight_prober_close(vmsight_prober* prober);
const char* vmsight_prober_error(const vmsight_prober* prober);

/* "kvm", "gdbstub". Valid until closing. */
const char* vmsight_prober_engine(const vmsight_prober* prober);

/* Calls `place` for each place that a request's site stands for, and returns how many sites these are:
 * a user site has a place in each process (else `tgid` is 0). Arms nothing. */
int vmsight_prober_find(vmsight_prober* prober, const vmsight_probe_request* request,
                        vmsight_probe_place place, void* context);
/* Arms a site; returns how many probes that made (a pattern makes many), the first of which has
 * the number `*first`, and the next ones those after it. `first` may be NULL. */
int vmsight_prober_add(vmsight_prober* prober, const vmsight_probe_request* request,
                       uint32_t* first);
int vmsight_prober_remove(vmsight_prober* prober, uint32_t probe);
int vmsight_prober_counts(vmsight_prober* prober, uint32_t probe, vmsight_probe_counts* counts);
/* Traps that belong to no probe: forged by the guest, or left from before. */
uint64_t vmsight_prober_foreign(const vmsight_prober* prober);
/* Calls handlers until nothing came for so long; returns how many events there were. */
int vmsight_prober_poll(vmsight_prober* prober, int milliseconds);

/* Memory of the guest, from inside a handler: how many bytes could be read. Addresses below 2^63 are
 * those of the process that was hit. It is as it was at the hit if `standing` was asked for and the
 * engine can do that. */
size_t vmsight_probe_read(const vmsight_probe_event* event, uint64_t address, void* into,
                          size_t size);

#ifdef __cplusplus
}
#endif

#endif
