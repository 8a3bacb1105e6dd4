/* libvmsight for C and other languages: what a VM of this host, or a memory image, has inside.
 *
 *     vmsight_error why = VMSIGHT_ERROR;
 *     vmsight_guest *guest = vmsight_attach("web1", NULL, &why);
 *     vmsight_state *state = guest ? vmsight_read_state(guest, NULL, &why) : NULL;
 *     vmsight_records *processes = state ? vmsight_records_of(state, "processes", &why) : NULL;
 *     if (!processes) { printf("%s\n%s\n", why.message, why.hint); return 1; }
 *     while (vmsight_next_record(processes)) {
 *       vmsight_value pid = VMSIGHT_VALUE, comm = VMSIGHT_VALUE;
 *       vmsight_get(processes, "pid", &pid, NULL);
 *       vmsight_get(processes, "comm", &comm, NULL);
 *       printf("%lld %s\n", (long long)pid.number.as_signed, comm.text);
 *     }
 *
 * Errors. What returns a pointer gives NULL for an error, what returns int gives -1; the reason is in
 * `error`, which may be NULL.
 *
 * Sizes. Each structure begins with its size, as the program was compiled: begin with the macros
 * below. A library that is newer than the program fills in, and looks at, only that much.
 *
 * NULL for a pointer that must lead somewhere is an error, VMSIGHT_USAGE.
 *
 * Threads. A guest, and all that was made of it, is for one thread at a time. Different guests may be
 * used by different threads at the same time. An error belongs to whoever passed it.
 *
 * Signals. The library sets no handlers, unless vmsight_survive_lost_memory() is called.
 *
 * Texts are UTF-8 or whatever bytes the guest has, end with a NUL, and belong to the library unless
 * it says that vmsight_free() is to be called. Addresses of the guest are numbers. */
#ifndef VMSIGHT_VMSIGHT_H
#define VMSIGHT_VMSIGHT_H

#include <stddef.h>
#include <stdint.h>

#include <vmsight/public.h>
#include <vmsight/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

/* ---- errors ------------------------------------------------------------------------------------- */

typedef enum vmsight_code {
  VMSIGHT_OK = 0,
  VMSIGHT_OS,          /* a system call failed: os_errno */
  VMSIGHT_FAULT,       /* guest memory that is not mapped or not RAM: address */
  VMSIGHT_NOT_FOUND,   /* no such VM, symbol, type, process ... */
  VMSIGHT_AMBIGUOUS,   /* several are meant; the message names them */
  VMSIGHT_UNSUPPORTED, /* this host, VM or kernel cannot do it; the message says why */
  VMSIGHT_BAD_DATA,    /* what was read contradicts itself */
  VMSIGHT_PERMISSION,  /* rights are missing */
  VMSIGHT_TIMEOUT,     /* the other side did not answer in time, or the guest stood too long */
  VMSIGHT_VM_GONE,     /* the VM ended, rebooted or moved away */
  VMSIGHT_USAGE        /* the arguments are wrong */
} vmsight_code;

typedef struct vmsight_error {
  size_t size;
  vmsight_code code;
  int os_errno;      /* of VMSIGHT_OS and VMSIGHT_PERMISSION, else 0 */
  uint64_t address;  /* of VMSIGHT_FAULT, if it is known, else 0 */
  char message[512]; /* one line; what is longer is cut */
  char hint[512];    /* what can be done about it, or "" */
} vmsight_error;
#define VMSIGHT_ERROR \
  { .size = sizeof(vmsight_error) }

/* Frees what the library says is to be freed. */
void vmsight_free(void* text);

/* Memory that is mapped can vanish: the host may cut the file that a VM's RAM or an image is. Touching it
 * then ends a program by SIGBUS. This installs a handler, for the whole process and for good, that
 * lets the library go on with an error instead; other SIGBUSes go to the handler there was before.
 * Without it nothing is mapped: VMs are read by system calls, which is slower, and images are not read. */
int vmsight_survive_lost_memory(vmsight_error* error);

/* ---- virtual machines ---------------------------------------------------------------------------- */

typedef struct vmsight_vm {
  size_t size;
  const char *name, *uuid, *accelerator, *machine; /* "kvm", "tcg"; "q35" */
  int32_t pid;
  uint32_t vcpus;
  uint64_t memory_bytes;
} vmsight_vm;

/* Calls `each` for each running VM of this host, by PID; the structure is valid until it returns. Returns
 * how many there are. Nothing is asked of them. */
int vmsight_list(void (*each)(const vmsight_vm* vm, void* context), void* context,
                 vmsight_error* error);

typedef struct vmsight_attach_options {
  size_t size;
  const char* technique;       /* NULL: "auto"; "live-map", "halt-read:ptrace" ... */
  const char* kernel;          /* NULL: the one that runs; an index, or the start of a build id */
  const char* cache_directory; /* of what is learnt about kernels. NULL: the user's; "": none */
  int consistent;              /* a view shows one moment */
  int no_pause;                /* the guest never stands still */
  int no_injection;            /* no system calls inside the QEMU process */
  uint32_t max_halt_ms;        /* how long a view may halt the guest; 0: a second */
  /* Long work says what it does; NULL: nobody is told. */
  void (*progress)(const char* what, void* context);
  void* context;
  int absent_is_zero; /* of an image: what its writer left out reads as zeros, not as missing */
  /* The whole process gives up, for good, every right but to read this guest: no files, no network, no programs.
   * Call it while there is one thread. VMSIGHT_UNSUPPORTED if the technique needs more. */
  int sandbox;
} vmsight_attach_options;
#define VMSIGHT_ATTACH_OPTIONS \
  { .size = sizeof(vmsight_attach_options) }

typedef struct vmsight_guest vmsight_guest;

/* `vm`: a name, a PID, a QMP socket, a libvirt domain, or the path of a memory image. Chooses a technique
 * and finds the kernel, both without disturbing the guest; what a killed vmsight left in it is undone
 * first. `options` may be NULL. */
vmsight_guest* vmsight_attach(const char* vm, const vmsight_attach_options* options,
                              vmsight_error* error);
/* Probers of it must have been closed. NULL is allowed here, and wherever something is given back. */
void vmsight_detach(vmsight_guest* guest);

typedef struct vmsight_guest_info {
  size_t size;
  const char *name, *technique, *banner, *build_id; /* of its kernel: "Linux version 6.1.0 ..." */
  int32_t pid;                                      /* of QEMU; 0: an image */
  uint64_t memory_bytes;
} vmsight_guest_info;
#define VMSIGHT_GUEST_INFO \
  { .size = sizeof(vmsight_guest_info) }

/* Texts are valid until the guest is detached or its kernel found again. */
int vmsight_info(vmsight_guest* guest, vmsight_guest_info* info, vmsight_error* error);

/* After VMSIGHT_VM_GONE: finds the kernel of a guest that has rebooted. States are then to be read anew;
 * probers of the guest must have been closed. */
int vmsight_find_kernel_again(vmsight_guest* guest, vmsight_error* error);

/* ---- the state: records ---------------------------------------------------------------------------- */

typedef struct vmsight_state vmsight_state;
typedef struct vmsight_records vmsight_records;

typedef struct vmsight_state_options {
  size_t size;
  const char* parts; /* "processes,sockets": keys of the document; NULL: all but threads */
  int32_t pid;       /* of this process only; 0: all */
  int residency;     /* also how much of each map is in RAM */
} vmsight_state_options;
#define VMSIGHT_STATE_OPTIONS \
  { .size = sizeof(vmsight_state_options) }

/* One view; `options` may be NULL. What could not be read has no value, and is told by
 * vmsight_state_problem(). A state lives on its own: the guest may be detached before. */
vmsight_state* vmsight_read_state(vmsight_guest* guest, const vmsight_state_options* options,
                                  vmsight_error* error);
void vmsight_free_state(vmsight_state* state);

/* The document that `vmsight state --json` prints. To be freed with vmsight_free(). */
char* vmsight_state_json(const vmsight_state* state, vmsight_error* error);

/* What could not be read, and why; NULL beyond the last. */
const char* vmsight_state_problem(const vmsight_state* state, size_t index);

typedef enum vmsight_type {
  VMSIGHT_NULL, /* not there, or not readable */
  VMSIGHT_BOOLEAN,
  VMSIGHT_UNSIGNED,
  VMSIGHT_SIGNED,
  VMSIGHT_REAL,
  VMSIGHT_TEXT,
  VMSIGHT_LIST,  /* as JSON, in `text` */
  VMSIGHT_OBJECT /* as JSON, in `text` */
} vmsight_type;

typedef struct vmsight_value {
  size_t size;
  vmsight_type type;
  union {
    int as_boolean;
    uint64_t as_unsigned;
    int64_t as_signed; /* also of VMSIGHT_UNSIGNED, if it fits */
    double as_real;
  } number;
  const char* text;  /* "" unless it is a text, a list or an object */
  size_t text_bytes; /* the guest's texts may hold NULs */
} vmsight_value;
#define VMSIGHT_VALUE \
  { .size = sizeof(vmsight_value) }

typedef struct vmsight_field {
  size_t size;
  const char *name, *unit, *meaning; /* "rss_bytes", "bytes", one line */
  int identifies;                    /* a part of what makes a record the same one in two states */
  int changes;                       /* another value is a change of the record */
} vmsight_field;
#define VMSIGHT_FIELD \
  { .size = sizeof(vmsight_field) }

/* The kinds of records: "cpus", "processes", "open_files" ... in the order of the document; NULL beyond
 * the last. docs/json.md describes them. */
const char* vmsight_kind(size_t index);
/* The fields of a kind. Returns 1, 0 beyond the last, and -1 for an unknown kind. */
int vmsight_field_of(const char* kind, size_t index, vmsight_field* field, vmsight_error* error);

/* Before the first record of a kind; vmsight_next_record() goes to the next, and returns 0 after the
 * last. The state must outlive it. */
vmsight_records* vmsight_records_of(const vmsight_state* state, const char* kind,
                                    vmsight_error* error);
int vmsight_next_record(vmsight_records* records);
/* A field of the record, by name. Valid until the next call with these records. */
int vmsight_get(vmsight_records* records, const char* field, vmsight_value* value,
                vmsight_error* error);
/* The whole record, as one object; valid as above. */
const char* vmsight_record_json(vmsight_records* records, vmsight_error* error);
void vmsight_free_records(vmsight_records* records);

/* ---- memory, symbols, types -------------------------------------------------------------------------- */

/* Values of vmsight_space; any other is VMSIGHT_USAGE. */
enum {
  VMSIGHT_KERNEL,   /* addresses of the kernel */
  VMSIGHT_PHYSICAL, /* guest-physical addresses */
  VMSIGHT_PROCESS   /* addresses of a process */
};
typedef int vmsight_space;

/* Copies memory; returns how many bytes could be read before one that is not there. `pid` is looked at for
 * VMSIGHT_PROCESS only. Outside of a view each call is a view of its own: a technique that halts the
 * guest does so each time. */
int64_t vmsight_read(vmsight_guest* guest, vmsight_space space, int32_t pid, uint64_t address,
                     void* into, size_t bytes, vmsight_error* error);

/* Several reads of one view. Between these two the guest is halted, if the technique halts, and nothing that
 * can block may be done; what was read may be believed only if vmsight_end_view() gives 0. */
int vmsight_begin_view(vmsight_guest* guest, vmsight_error* error);
int vmsight_end_view(vmsight_guest* guest, vmsight_error* error);

/* "jiffies_64"; of a module "virtio_net:virtio_net_driver". Modules are those that were loaded when a symbol
 * of one was first asked for; vmsight_find_kernel_again() looks anew. */
int vmsight_symbol(vmsight_guest* guest, const char* name, uint64_t* address, vmsight_error* error);

typedef struct vmsight_place {
  size_t size;
  const char *name, *module; /* "" of the kernel itself. Valid until the next call */
  uint64_t offset;
} vmsight_place;
#define VMSIGHT_PLACE \
  { .size = sizeof(vmsight_place) }
/* The symbol that an address belongs to. */
int vmsight_symbol_at(vmsight_guest* guest, uint64_t address, vmsight_place* place,
                      vmsight_error* error);

typedef struct vmsight_member {
  size_t size;
  uint32_t offset, bytes, count; /* from the start of the structure; of an array its elements */
  uint32_t bit_offset, bit_size; /* of bitfields, within the 64 bits at `offset`; else 0 */
} vmsight_member;
#define VMSIGHT_MEMBER \
  { .size = sizeof(vmsight_member) }
/* ("task_struct", "thread_info.cpu"); of a module's types "module:name". */
int vmsight_member_of(vmsight_guest* guest, const char* type, const char* path,
                      vmsight_member* member, vmsight_error* error);
int64_t vmsight_size_of(vmsight_guest* guest, const char* type, vmsight_error* error);
int vmsight_enumerator(vmsight_guest* guest, const char* name, int64_t* value,
                       vmsight_error* error);
/* As `vmsight type --json` and `vmsight print --json` write it. To be freed with vmsight_free(). */
char* vmsight_type_json(vmsight_guest* guest, const char* type, vmsight_error* error);
char* vmsight_print_json(vmsight_guest* guest, const char* expression, vmsight_error* error);

/* ---- probes -------------------------------------------------------------------------------------------- */

typedef struct vmsight_prober vmsight_prober;

/* An argument or a result. `text` is for people; `bytes` is a string of the guest, NULL if it is none. */
typedef struct vmsight_probe_argument {
  size_t size;
  const char *name, *type, *text;
  int known, is_signed;
  uint64_t number;
  const char* bytes;
  size_t byte_count;
  const char* names; /* of the number: flags, an enumerator, of a result its error; "" for none */
  const char* structure; /* "struct open_how" that it points to; "" for none */
  int unused;            /* the system call does not look at it, as the others are */
} vmsight_probe_argument;

/* What a handler gets; valid until it returns. */
typedef struct vmsight_probe_event {
  size_t size;
  uint32_t probe;
  int at_return;
  uint64_t time_ns;     /* of the host's monotonic clock */
  uint64_t duration_ns; /* at a return: since the entry */
  uint32_t vcpu;
  int task_known;
  int32_t pid, tgid; /* thread and process */
  const char *comm, *function;
  const vmsight_probe_argument* const* arguments;
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
  size_t size;
  const char* site;     /* as `vmsight trace` takes it */
  const char* filter;   /* NULL: none */
  int32_t pid;          /* 0: any process */
  int counts_only;      /* the handler is not called */
  int standing;         /* it is called while the guest stands, where the engine can do that */
  uint64_t rate_limit;  /* events a second; 0: all */
  uint64_t storm_limit; /* hits a second from which on engine kvm disarms it; 0: the default */
  vmsight_probe_handler handler;
  void* context;
  /* On the host: a copy of the user program, for its symbols; NULL: the guest's. */
  const char* symbols_file;
  int where_filter_fits; /* leave out sites whose function has nothing of a name in the filter */
} vmsight_probe_request;
#define VMSIGHT_PROBE_REQUEST \
  { .size = sizeof(vmsight_probe_request) }

typedef struct vmsight_probe_counts {
  size_t size;
  uint64_t hits, filtered, told, lost, missed_returns, rate_limited, foreign;
  uint64_t durations[64]; /* of calls: [2^i, 2^(i+1)) ns */
  int stormed;            /* disarmed by the engine, because it was hit too often */
  uint64_t reloads;       /* of user functions: how often its page came and was only then probed */
} vmsight_probe_counts;
#define VMSIGHT_PROBE_COUNTS \
  { .size = sizeof(vmsight_probe_counts) }

/* One place that a site stands for, valid until the function returns. */
typedef void (*vmsight_probe_place)(const char* site, uint64_t address, int32_t tgid,
                                    void* context);

/* `engine` as the command line takes it; NULL: "auto". The guest must outlive it. Closing disarms
 * everything, and so does our death. */
vmsight_prober* vmsight_prober_open(vmsight_guest* guest, const char* engine, vmsight_error* error);
void vmsight_prober_close(vmsight_prober* prober);

/* "kvm", "gdbstub". Valid until closing. */
const char* vmsight_prober_engine(const vmsight_prober* prober);

/* Calls `place` for each place that a request's site stands for, and returns how many sites these are:
 * a user site has a place in each process (else `tgid` is 0). Arms nothing. */
int vmsight_prober_find(vmsight_prober* prober, const vmsight_probe_request* request,
                        vmsight_probe_place place, void* context, vmsight_error* error);
/* Arms a site; returns how many probes that made (a pattern makes many), the first of which has
 * the number `*first`, and the next ones those after it. `first` may be NULL. */
int vmsight_prober_add(vmsight_prober* prober, const vmsight_probe_request* request,
                       uint32_t* first, vmsight_error* error);
int vmsight_prober_remove(vmsight_prober* prober, uint32_t probe, vmsight_error* error);
int vmsight_prober_counts(vmsight_prober* prober, uint32_t probe, vmsight_probe_counts* counts,
                          vmsight_error* error);
/* Traps that belong to no probe: forged by the guest, or left from before. */
uint64_t vmsight_prober_foreign(const vmsight_prober* prober);
/* Waits so long for events and calls the handlers of those that came; returns how many there were. A handler
 * may read memory, and close the prober; everything else has to wait until this returns. */
int vmsight_prober_poll(vmsight_prober* prober, int milliseconds, vmsight_error* error);

/* Memory of the guest, from inside a handler: how many bytes could be read. Addresses below 2^63 are
 * those of the process that was hit. It is as it was at the hit if `standing` was asked for and the
 * engine can do that. */
size_t vmsight_probe_read(const vmsight_probe_event* event, uint64_t address, void* into,
                          size_t bytes);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
