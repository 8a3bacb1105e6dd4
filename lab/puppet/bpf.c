// A process with programs of BPF that the kernel compiles: classic ones, that filter packets and system
// calls, and others, one of which is called where a function of the kernel begins.
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "puppet.h"

static const char license[] = "GPL";

static int bpf(enum bpf_cmd command, union bpf_attr* attributes) {
  return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

// r0 = 0; exit
static const struct bpf_insn does_nothing[] = {
    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
    {.code = BPF_JMP | BPF_EXIT},
};

static int load(enum bpf_prog_type type, enum bpf_attach_type attach, uint32_t function) {
  union bpf_attr attributes = {
      .prog_type = type,
      .insn_cnt = COUNT(does_nothing),
      .insns = (uintptr_t)does_nothing,
      .license = (uintptr_t)license,
      .expected_attach_type = attach,
      .attach_btf_id = function,
  };
  return bpf(BPF_PROG_LOAD, &attributes);
}

// ---- the number that the kernel's types give a function ----

typedef struct {
  uint16_t magic;
  uint8_t version, flags;
  uint32_t header_size, types, types_size, names, names_size;
} BtfHeader;
typedef struct {
  uint32_t name, info, size;
} BtfType;

// Bytes behind a type: Documentation/bpf/btf.rst.
static size_t rest_of(const BtfType* type) {
  static const uint8_t each[32] = {[4] = 12, [5] = 12, [6] = 8, [13] = 8, [15] = 12, [19] = 12};
  static const uint8_t once[32] = {[1] = 4, [3] = 12, [14] = 4, [17] = 4};
  const uint32_t kind = type->info >> 24 & 31;
  return each[kind] * (type->info & 0xffff) + once[kind];
}

static uint32_t find_function(const char* data, const char* name) {
  const uint32_t kind_function = 12;
  BtfHeader header;
  memcpy(&header, data, sizeof(header));
  const char* at = data + header.header_size + header.types;
  const char* end = at + header.types_size;
  const char* names = data + header.header_size + header.names;
  for (uint32_t id = 1; at < end; id++) {
    BtfType type;
    memcpy(&type, at, sizeof(type));
    if ((type.info >> 24 & 31) == kind_function && strcmp(names + type.name, name) == 0) return id;
    at += sizeof(type) + rest_of(&type);
  }
  return 0;
}

static uint32_t number_of(const char* function) {
  const size_t most = 64 << 20;
  char* data = malloc(most);
  const int file = open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC);
  size_t size = 0;
  ssize_t got = -1;
  while (data && size < most && (got = read(file, data + size, most - size)) > 0) size += got;
  close(file);
  const uint32_t number = got == 0 && size > sizeof(BtfHeader) ? find_function(data, function) : 0;
  free(data);
  return number;
}

// ---- what is attached ----

static int filter_packets(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x0800, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 1 << 16),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  const struct sock_fprog program = {.len = COUNT(code), .filter = code};
  const int classic = socket(AF_INET, SOCK_DGRAM, 0), other = socket(AF_INET, SOCK_DGRAM, 0);
  const int loaded = load(BPF_PROG_TYPE_SOCKET_FILTER, 0, 0);
  if (setsockopt(classic, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program))) return -1;
  return setsockopt(other, SOL_SOCKET, SO_ATTACH_BPF, &loaded, sizeof(loaded));
}

static int filter_calls(void) {
  struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const struct sock_fprog program = {.len = COUNT(code), .filter = code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
                 syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)
             ? -1
             : 0;
}

static int watch_function(const char* name) {
  const uint32_t number = number_of(name);
  if (number == 0) return errno = ENOENT, -1;
  const int loaded = load(BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, number);
  if (loaded < 0) return -1;
  union bpf_attr attributes = {.raw_tracepoint = {.prog_fd = loaded}};
  return bpf(BPF_RAW_TRACEPOINT_OPEN, &attributes) < 0 ? -1 : 0;
}

static int live_with_programs(int unused) {
  (void)unused;
  prctl(PR_SET_NAME, "bpf");
  return watch_function("do_sys_openat2") || filter_packets() || filter_calls() ? -1 : 0;
}

int make_bpf(void) { return spawn(live_with_programs, 0) < 0 ? -1 : 0; }
