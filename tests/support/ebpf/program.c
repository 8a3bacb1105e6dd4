#include "support/ebpf/program.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define times durations_of_probes  // the C library has another one
#include "probe/kvm/probe.bpf.c"
#undef times

// ---- maps ---------------------------------------------------------------------------------

struct entry {
  struct entry* next;
  const void* map;
  void* value;
  char key[64];
};
static struct entry* entries;
static int has_room = 1;

static struct entry** find_entry(const void* map, size_t key_size, const void* key) {
  struct entry** at = &entries;
  while (*at && ((*at)->map != map || memcmp((*at)->key, key, key_size) != 0)) at = &(*at)->next;
  return at;
}

static void* insert(const void* map, size_t key_size, size_t value_size, const void* key) {
  struct entry* entry = calloc(1, sizeof(*entry));
  entry->map = map;
  memcpy(entry->key, key, key_size);
  entry->value = calloc(1, value_size);
  entry->next = entries;
  entries = entry;
  return entry->value;
}

/// An array has all its elements from the first.
void* native_lookup(const void* map, int is_hash, size_t key_size, size_t value_size,
                    const void* key) {
  struct entry* found = *find_entry(map, key_size, key);
  if (found) return found->value;
  return is_hash ? NULL : insert(map, key_size, value_size, key);
}

long native_update(const void* map, size_t key_size, size_t value_size, const void* key,
                   const void* value) {
  struct entry* found = *find_entry(map, key_size, key);
  if (!found && !has_room) return -ENOMEM;
  memcpy(found ? found->value : insert(map, key_size, value_size, key), value, value_size);
  return 0;
}

long native_delete(const void* map, size_t key_size, const void* key) {
  struct entry** at = find_entry(map, key_size, key);
  struct entry* found = *at;
  if (!found) return -ENOENT;
  *at = found->next;
  free(found->value);
  free(found);
  return 0;
}

// ---- the ring: its last event ---------------------------------------------------------------

static char last_event[sizeof(struct event) + max_event_data + max_fetch_size + 64];
static size_t last_size;

void* bpf_ringbuf_reserve(void* map, __u64 size, __u64 flags) {
  last_size = size;
  return last_event;
}
void bpf_ringbuf_submit(void* data, __u64 flags) {}
long bpf_ringbuf_output(void* map, void* data, __u64 size, __u64 flags) {
  last_size = size;
  memcpy(last_event, data, size);
  return 0;
}
__u64 bpf_ringbuf_query(void* map, __u64 what) { return 0; }

const void* native_program_event(size_t* size) {
  *size = last_size;
  last_size = 0;
  return *size ? last_event : NULL;
}

// ---- memory: only the guest's RAM can be read -------------------------------------------------

static int is_ram(__u64 host) {
  for (__u32 i = 0; i < guest.range_count; ++i) {
    if (host - guest.ranges[i].delta >= guest.ranges[i].start &&
        host - guest.ranges[i].delta < guest.ranges[i].end)
      return 1;
  }
  return 0;
}

long bpf_probe_read_user(void* into, __u32 size, const void* from) {
  if (!is_ram((__u64)from) || !is_ram((__u64)from + size - 1)) {
    memset(into, 0, size);
    return -EFAULT;
  }
  memcpy(into, from, size);
  return 0;
}

/// strncpy_from_user_nofault(): how many bytes with the NUL, which stands in place of the last if there is none.
long bpf_probe_read_user_str(void* into, __u32 size, const void* from) {
  for (__u32 i = 0; i < size; ++i) {
    if (!is_ram((__u64)from + i)) {
      memset(into, 0, size);
      return -EFAULT;
    }
    const char byte = ((const char*)from)[i];
    ((char*)into)[i] = i + 1 == size ? 0 : byte;
    if (byte == 0) return i + 1;
  }
  return size;
}

long bpf_probe_read_kernel(void* into, __u32 size, const void* from) {
  memcpy(into, from, size);
  return 0;
}

__u64 bpf_ktime_get_ns(void) {
  static __u64 now = 1000000000;
  return now += 1000;
}

void* bpf_get_current_task_btf(void) {
  static struct task_struct task;
  task.tgid = guest.tgid;
  return &task;
}

// ---- what tests do ----------------------------------------------------------------------------

/// For the program its guest is a constant.
static void write_guest(const void* from) {
  const __u64 page = 4096, start = (__u64)&guest & ~(page - 1);
  const __u64 end = ((__u64)&guest + sizeof(guest) + page - 1) & ~(page - 1);
  if (mprotect((void*)start, end - start, PROT_READ | PROT_WRITE) != 0) abort();
  memcpy((void*)&guest, from, sizeof(guest));
}

void native_program_begin(const void* from) {
  while (entries) native_delete(entries->map, sizeof(entries->key), entries->key);
  write_guest(from);
  memset(lone_traps, 0, sizeof(lone_traps));
  last_size = 0;
  has_room = 1;
}

void native_program_set_probe(uint32_t index, const void* probe) {
  native_update(&probes, sizeof(index), sizeof(struct probe), &index, probe);
}

void native_program_set_trap(uint64_t next_rip, const void* trap) {
  const struct trap* given = trap;
  __u64* slot = &lone_traps[lone_slot(next_rip)];
  native_update(&traps, sizeof(next_rip), sizeof(struct trap), &next_rip, trap);
  if (given->count == 1) *slot = lone_entry(next_rip, given);
}

void native_program_hit(uint64_t next_rip, const uint64_t* registers, uint64_t cr3, int apic_id) {
  struct kvm_vcpu vcpu = {.vcpu_id = apic_id, .vcpu_idx = apic_id};
  memcpy(vcpu.arch.regs, registers, 16 * sizeof(*registers));
  vcpu.arch.regs[16] = next_rip;
  vcpu.arch.regs_avail = 0xffff | (cr3 ? 1u << 18 : 0);
  vcpu.arch.cr3 = cr3;
  on_invd(&vcpu);
}

const void* native_program_counters(uint32_t index) {
  return native_lookup(&counts, 0, sizeof(index), sizeof(struct counters), &index);
}

void native_program_set_room(int room) { has_room = room; }
