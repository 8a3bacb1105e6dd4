// Stands for libbpf's header of this name where the eBPF program is compiled for this machine, to be tested: maps are
// memory, and helpers are functions of program.c that do what the kernel's do.
#pragma once

#include <linux/types.h>

#define SEC(name)
#define __uint(name, value) int(*name)[value]
#define __type(name, value) __typeof__(value)* name
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

void* native_lookup(const void* map, int is_hash, size_t key_size, size_t value_size,
                    const void* key);
long native_update(const void* map, size_t key_size, size_t value_size, const void* key,
                   const void* value);
long native_delete(const void* map, size_t key_size, const void* key);

#define NATIVE_KEY_SIZE(map) sizeof(*(map)->key)
#define NATIVE_VALUE_SIZE(map) sizeof(*(map)->value)
#define NATIVE_IS_HASH(map) (sizeof(*(map)->type) / sizeof(int) == BPF_MAP_TYPE_HASH)
#define bpf_map_lookup_elem(map, at) \
  native_lookup(map, NATIVE_IS_HASH(map), NATIVE_KEY_SIZE(map), NATIVE_VALUE_SIZE(map), at)
#define bpf_map_update_elem(map, at, from, flags) \
  native_update(map, NATIVE_KEY_SIZE(map), NATIVE_VALUE_SIZE(map), at, from)
#define bpf_map_delete_elem(map, at) native_delete(map, NATIVE_KEY_SIZE(map), at)

void* bpf_ringbuf_reserve(void* ring, __u64 size, __u64 flags);
void bpf_ringbuf_submit(void* data, __u64 flags);
long bpf_ringbuf_output(void* ring, void* data, __u64 size, __u64 flags);
__u64 bpf_ringbuf_query(void* ring, __u64 what);

long bpf_probe_read_user(void* into, __u32 size, const void* from);
long bpf_probe_read_user_str(void* into, __u32 size, const void* from);
long bpf_probe_read_kernel(void* into, __u32 size, const void* from);
__u64 bpf_ktime_get_ns(void);
void* bpf_get_current_task_btf(void);
