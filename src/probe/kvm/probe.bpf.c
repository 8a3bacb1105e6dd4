// Runs in the host's kernel, on the thread of the vCPU that came to a trap, after KVM has skipped it.
//
//   fexit/kvm_emulate_invd       exits that KVM handles outside its inner loop; all but the newest
//   fexit/handle_fastpath_invd   inside it, with interrupts off
//
// After the skip RIP is known on every CPU, and no trap is counted that did not complete. Guest
// memory is read through QEMU's own mapping of it: current->mm is QEMU's.
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "probe/kvm/kvm_types.h"
#include "probe/kvm/shared.h"

char gpl[] SEC("license") = "GPL";

const volatile struct guest guest;
__u64 counting_traps[counting_slots];  // written while we run

struct note {  // of a fetch, for filters
  __u64 value;
  __u16 at, size;  // its bytes, in `data`
  __u32 ok;
};

struct call {
  __u64 time;
  __u64 registers[16];
  __u64 used;
  struct note notes[max_fetches];
  __u8 data[max_entry_data];
};

// What one run works on. The event is sent as it stands here, with its data.
struct scratch {
  struct event event;
  __u8 data[max_event_data + max_fetch_size + 64];
  __u64 used;       // of data
  __u64 user_root;  // of the current task's page table, once it is known
  __u32 has_task, has_comm;
  __u32 apic_id;
  __u64 entry_registers[16];
  struct note notes[2 * max_fetches];
  struct call call;
};

#define MAP(kind, entries, key_type, value_type, name) \
  struct {                                             \
    __uint(type, kind);                                \
    __uint(max_entries, entries);                      \
    __type(key, key_type);                             \
    __type(value, value_type);                         \
  } name SEC(".maps")

MAP(BPF_MAP_TYPE_HASH, max_traps, __u64, struct trap, traps);
MAP(BPF_MAP_TYPE_ARRAY, max_probes, __u32, struct probe, probes);
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, max_probes, __u32, struct counters, counts);
MAP(BPF_MAP_TYPE_ARRAY, max_probes, __u32, struct rate, rates);
MAP(BPF_MAP_TYPE_ARRAY, max_probes, __u32, struct durations, times);
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, 1, __u32, struct strangers, nobodys);
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, scratch_count, __u32, struct scratch, scratches);
MAP(BPF_MAP_TYPE_ARRAY, max_vcpus, __u32, __u64, handled);  // of each vCPU: the last exit, counted from 1
MAP(BPF_MAP_TYPE_ARRAY, rescue_kinds, __u32, __u64, rescues);  // traps that only the second program saw

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, max_calls);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct call_key);
  __type(value, struct call);
} calls SEC(".maps");

MAP(BPF_MAP_TYPE_ARRAY, max_buckets, __u32, struct brief_bucket, brief_calls);

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, ring_size);
} ring SEC(".maps");

// A function that the verifier looks at once, whatever calls it. At most eight may call each other.
#define CHECKED_ONCE __attribute__((noinline))

// What the compiler knows of a number the verifier may not: then it must check the very register.
static __always_inline __u64 opaque(__u64 value) {
  asm volatile("" : "+r"(value));
  return value;
}

// On a preemptible kernel two programs may count on one CPU, one within the other.
static __always_inline void count_up(__u64 *counter) { __sync_fetch_and_add(counter, 1); }

// ---- guest memory -------------------------------------------------------------------------

static __always_inline __u64 physical_to_host(__u64 address) {
  for (int i = 0; i < max_ranges; ++i) {
    if (i >= guest.range_count) break;
    if (address >= guest.ranges[i].start && address < guest.ranges[i].end) {
      return address + guest.ranges[i].delta;
    }
  }
  return 0;
}

// Into the stack, where it can be: a kernel with hardened copies looks up whose any other memory is, each time.
static __always_inline bool read_host(void *into, __u32 size, __u64 host) {
  return host != 0 && bpf_probe_read_user(into, size, (const void *)host) == 0;
}

#define PHYSICAL_MASK 0x000ffffffffff000ull

// A page table walk; the host's address, or 0.
CHECKED_ONCE __u64 walk(__u64 root, __u64 address) {
  __u64 table = root & PHYSICAL_MASK;
  for (int shift = guest.five_level ? 48 : 39; shift >= 12; shift -= 9) {
    __u64 entry = 0;
    const __u64 at = table + ((address >> shift & 511) << 3);
    if (!read_host(&entry, sizeof(entry), physical_to_host(at)) || !(entry & 1)) return 0;
    const __u64 inside = (1ull << shift) - 1;
    if (shift == 12 || ((entry & 0x80) && shift <= 30)) {
      return physical_to_host((entry & PHYSICAL_MASK & ~inside) | (address & inside));
    }
    table = entry & PHYSICAL_MASK;
  }
  return 0;
}

static __always_inline bool in_window(const volatile struct window *window, __u64 address) {
  return address >= window->start && address < window->end;
}

static __always_inline __u64 kernel_to_host(__u64 address) {
  if (in_window(&guest.direct_map, address)) return physical_to_host(address - guest.direct_map.delta);
  if (in_window(&guest.image, address)) return physical_to_host(address - guest.image.delta);
  return walk(guest.root, address);
}

CHECKED_ONCE __u64 user_root_of(struct scratch *s) {
  if (!s || !s->event.task) return 0;
  if (s->user_root) return s->user_root;
  if (s->event.known >> 16 & 1) {  // AMD: the kernel runs on the task's own table
    s->user_root = s->event.cr3 & PHYSICAL_MASK;
    return s->user_root;
  }
  __u64 mm = 0, pgd = 0;
  if (!read_host(&mm, sizeof(mm), kernel_to_host(s->event.task + guest.mm_offset)) || !mm) return 0;
  if (!read_host(&pgd, sizeof(pgd), kernel_to_host(mm + guest.pgd_offset))) return 0;
  if (!in_window(&guest.direct_map, pgd)) return 0;
  s->user_root = pgd - guest.direct_map.delta;
  return s->user_root;
}

static __always_inline __u64 to_host(struct scratch *s, __u64 address) {
  if (address >> 63) return kernel_to_host(address);
  const __u64 root = user_root_of(s);
  return root ? walk(root, address) : 0;
}

CHECKED_ONCE int find_task(struct scratch *s) {
  if (!s || s->has_task) return 0;
  s->has_task = 1;
  const __u64 apic_id = opaque(s->apic_id);
  if (apic_id >= max_apic_id) return 0;
  __u64 task = 0;
  if (!read_host(&task, sizeof(task), guest.current[apic_id])) return 0;
  __s32 ids[2] = {};
  const bool adjacent = guest.tgid_offset == guest.pid_offset + 4;
  if (!read_host(ids, adjacent ? 8 : 4, kernel_to_host(task + guest.pid_offset)) ||
      (!adjacent && !read_host(&ids[1], 4, kernel_to_host(task + guest.tgid_offset)))) {
    return 0;
  }
  s->event.pid = ids[0];
  s->event.tgid = ids[1];
  s->event.task = task;
  return 0;
}

// Of a task that was found.
CHECKED_ONCE int find_comm(struct scratch *s) {
  if (!s || s->has_comm) return 0;
  s->has_comm = 1;
  __u64 comm[2] = {}, *into = (__u64 *)s->event.comm;
  if (s->event.task) read_host(comm, 16, kernel_to_host(s->event.task + guest.comm_offset));
  into[0] = comm[0];
  into[1] = comm[1];
  s->event.comm[15] = 0;
  return 0;
}

// ---- what is to be read at a hit ----------------------------------------------------------

// Up to `size` bytes, to the end of the page; of a string up to its NUL. How many came.
static __always_inline __u32 read_piece(struct scratch *s, __u64 at, __u64 address, __u64 size,
                                        bool is_string, bool *ended) {
  const __u64 host = to_host(s, address);
  at = opaque(at);
  size = opaque(size);
  if (!host || at > max_event_data || size == 0 || size > max_fetch_size) return 0;
  if (is_string) {
    const long length = bpf_probe_read_user_str(&s->data[at], size, (const void *)host);
    if (length < 0) return 0;
    if (length < (long)size) {
      *ended = true;
      return length > 0 ? length - 1 : 0;
    }
  }
  return bpf_probe_read_user(&s->data[at], size, (const void *)host) == 0 ? size : 0;
}

CHECKED_ONCE int read_bytes(struct scratch *s, __u64 address, __u32 wanted, __u32 is_string) {
  if (!s) return 0;
  bool ended = false;
  __u32 at = s->used, done = 0;
  if (wanted > max_fetch_size) wanted = max_fetch_size;
  for (int i = 0; i < 2 && done < wanted && !ended; ++i) {
    const __u32 rest = 4096 - ((address + done) & 4095);
    const __u32 size = wanted - done < rest ? wanted - done : rest;
    const __u32 got = read_piece(s, at + done, address + done, size, is_string, &ended);
    done += got;
    if (got < size) break;
  }
  return done | (ended ? 1 << 16 : 0);
}

CHECKED_ONCE int run_fetch(struct scratch *s, __u32 index, __u32 which) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  if (!s || !probe) return 0;
  const __u64 number = opaque(which) & (2 * max_fetches - 1);
  const struct fetch *fetch = &probe->fetch[number];
  struct note *note = &s->notes[number];
  const __u64 at = opaque(s->used);
  note->ok = note->size = 0;
  note->value = 0;
  if (at > max_event_data - sizeof(struct fetched)) return 0;
  struct fetched *head = (struct fetched *)&s->data[at];
  *head = (struct fetched){};
  s->used = at + sizeof(*head);
  note->at = s->used;

  __u64 value = fetch->from_entry ? s->entry_registers[fetch->base & 15]
                                  : s->event.registers[fetch->base & 15];
  bool is_null = false;
  for (int i = 0; i < max_fetch_steps; ++i) {
    if (i >= fetch->step_count || is_null) break;
    is_null = value == 0;
    if (!is_null && !read_host(&value, 8, to_host(s, value + (__s64)fetch->steps[i]))) return 0;
  }
  is_null = is_null || (fetch->what != fetch_value && value == 0);
  if (!is_null) value += (__s64)fetch->offset;
  head->value = note->value = value;
  if (fetch->what == fetch_value || is_null) {
    head->ok = note->ok = 1;
    return 0;
  }
  const __u32 got = read_bytes(s, value, fetch->size, fetch->what == fetch_string);
  const __u64 size = opaque(got & 0xffff), start = opaque(s->used);
  const bool whole = fetch->what == fetch_string ? (got >> 16) != 0 : size == fetch->size;
  const bool cut = fetch->what == fetch_string && !whole && size == fetch->size;
  if (!whole && !cut) return 0;
  if (size > max_fetch_size || start > max_event_data) return 0;
  s->data[start + size] = 0;  // filters compare it too
  head->size = note->size = size;
  head->ok = note->ok = 1;
  head->cut = cut;
  s->used = start + ((size + 7) & ~7ull);
  return 0;
}

// ---- filters ------------------------------------------------------------------------------

static __always_inline bool compare(__u32 how, bool less, bool equal) {
  switch (how) {
    case term_equal: return equal;
    case term_unequal: return !equal;
    case term_less: return less;
    case term_less_equal: return less || equal;
    case term_greater: return !less && !equal;
    default: return !less;
  }
}

static __always_inline bool compare_numbers(const struct term *term, __u64 value) {
  const __u32 unused = (64 - term->bits) & 63;
  value <<= unused;
  if (term->is_signed) {
    const __s64 have = (__s64)value >> unused;
    return compare(term->compare, have < term->number, have == term->number);
  }
  value >>= unused;
  return compare(term->compare, value < (__u64)term->number, value == (__u64)term->number);
}

static __always_inline bool compare_signed(const struct term *term, __s64 value) {
  return compare(term->compare, value < term->number, value == term->number);
}

static __always_inline bool compare_comm(const struct scratch *s, const struct term *term) {
  const __u64 *comm = (const __u64 *)s->event.comm;
  const __u64 wrong = ((comm[0] ^ term->text[0]) & term->mask[0]) |
                      ((comm[1] ^ term->text[1]) & term->mask[1]);
  return compare(term->compare, false, wrong == 0);
}

static __always_inline bool compare_text(const struct scratch *s, const struct term *term, __u64 at) {
  at = opaque(at);
  if (at > max_event_data) return false;
  const __u64 *text = (const __u64 *)&s->data[at & ~7ull];
  __u64 wrong = 0;
  for (int i = 0; i < max_filter_text / 8; ++i) wrong |= (text[i] ^ term->text[i]) & term->mask[i];
  return compare(term->compare, false, wrong == 0);
}

CHECKED_ONCE int holds(struct scratch *s, __u32 index, __u32 which) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  if (!s || !probe) return 0;
  const struct term *term = &probe->term[opaque(which) & (max_terms - 1)];
  switch (term->field) {
    case term_pid: return s->event.task && compare_signed(term, s->event.pid);
    case term_tgid: return s->event.task && compare_signed(term, s->event.tgid);
    case term_comm: find_comm(s); return s->event.task && compare_comm(s, term);
    case term_cpu: return compare_signed(term, s->event.vcpu);
    case term_duration:
      return s->event.at_return && compare(term->compare, s->event.duration < (__u64)term->number,
                                           s->event.duration == (__u64)term->number);
  }
  const __u64 fetch = term->index + (term->field == term_fetch_return ? max_fetches : 0);
  const struct note *note = &s->notes[opaque(fetch) & (2 * max_fetches - 1)];
  if (!note->ok) return 0;
  return term->is_text ? compare_text(s, term, note->at) : compare_numbers(term, note->value);
}

// The stack of truths is a word.
CHECKED_ONCE int passes(struct scratch *s, __u32 index) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  if (!s || !probe) return 0;
  __u64 stack = 0;
  for (int i = 0; i < max_filter_steps; ++i) {
    if (i >= probe->steps) break;
    const __u64 top = stack & 1, below = stack >> 1 & 1, rest = stack >> 2 << 1;
    switch (probe->step[i].kind) {
      case step_term: stack = stack << 1 | (holds(s, index, probe->step[i].term) != 0); break;
      case step_both: stack = rest | (top & below); break;
      case step_either: stack = rest | (top | below); break;
      default: stack ^= 1; break;
    }
  }
  return stack & 1;
}

// ---- one probe ----------------------------------------------------------------------------

static __always_inline struct call_key key_of(const struct scratch *s, const struct probe *probe) {
  return (struct call_key){.task = s->event.task ? s->event.task : s->apic_id + 1,
                           .rsp = s->event.registers[kvm_rsp],
                           .probe = probe->id};
}

static __always_inline int fetch_all(struct scratch *s, __u32 index, __u32 at_return) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  if (!s || !probe) return 0;
  const __u32 count = at_return ? probe->fetches_return : probe->fetches;
  for (int i = 0; i < max_fetches; ++i) {
    if (i >= count) break;
    run_fetch(s, index, at_return ? max_fetches + i : i);
  }
  return 0;
}

CHECKED_ONCE int is_above_rate(__u32 index, __u64 now, __u64 limit) {
  struct rate *rate = bpf_map_lookup_elem(&rates, &index);
  if (!rate) return 0;
  const __u64 second = now / 1000000000;
  if (rate->second != second) {
    rate->second = second;
    rate->told = 0;
  }
  return __sync_fetch_and_add(&rate->told, 1) >= limit;
}

struct brief_event {
  struct event event;
  __u8 data[brief_event_data];
};

// Into the ring, by words. Most events are so small.
static __always_inline bool send_brief(const struct scratch *s, __u64 wake) {
  if (s->used == 0) {
    struct event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
    if (!event) return false;
    __builtin_memcpy(event, &s->event, sizeof(*event));
    bpf_ringbuf_submit(event, wake);
    return true;
  }
  struct brief_event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
  if (!event) return false;
  __builtin_memcpy(&event->event, &s->event, sizeof(event->event));
  __builtin_memcpy(event->data, s->data, sizeof(event->data));
  bpf_ringbuf_submit(event, wake);
  return true;
}

// Counts the hit, and tells it if somebody wants to know.
CHECKED_ONCE int tell(struct scratch *s, __u32 index) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  struct counters *counters = bpf_map_lookup_elem(&counts, &index);
  if (!s || !probe || !counters) return 0;
  if (probe->flags & probe_counts_only) return 0;
  if (probe->rate_limit && is_above_rate(index, s->event.time, probe->rate_limit)) {
    count_up(&counters->rate_limited);
    return 0;
  }
  const __u64 size = opaque(s->used);
  if (size > max_event_data + max_fetch_size) return 0;
  s->event.probe = probe->id;
  s->event.size = size;
  find_comm(s);
  const bool wakes = counters->told % wake_interval == 0 && bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= ring_wake;
  const __u64 wake = wakes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
  const bool sent = size <= brief_event_data
                        ? send_brief(s, wake)
                        : bpf_ringbuf_output(&ring, &s->event, sizeof(s->event) + size, wake) == 0;
  if (sent) count_up(&counters->told);
  else count_up(&counters->lost);
  return 0;
}

static __always_inline void begin_event(struct scratch *s, const struct probe *probe) {
  s->used = 0;
  s->event.at_return = 0;
  s->event.duration = 0;
  s->event.entry_fetches = probe->fetches;
  s->event.return_fetches = 0;
}

// Whether the filter is still to be evaluated when the entry's values have been read.
static __always_inline bool is_filtered_here(const struct probe *probe) {
  return probe->steps && !(probe->flags & (probe_filter_early | probe_filter_late));
}

static __always_inline int pass_entry(struct scratch *s, __u32 index) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  struct counters *counters = bpf_map_lookup_elem(&counts, &index);
  if (!s || !probe || !counters) return 0;
  begin_event(s, probe);
  fetch_all(s, index, 0);
  count_up(&counters->hits);
  if (is_filtered_here(probe) && !passes(s, index)) {
    count_up(&counters->filtered);
    return 0;
  }
  return tell(s, index);
}

// A task is on one CPU at a time, so only a free place is fought for.
static __always_inline struct brief_bucket *bucket_of(const struct call_key *key) {
  const __u64 mixed = (key->task ^ (key->rsp << 20) ^ key->probe << 44) * 0x9e3779b97f4a7c15ull;
  const __u32 number = (mixed >> 40) & (max_buckets - 1);
  return bpf_map_lookup_elem(&brief_calls, &number);
}

static __always_inline bool is_key(const struct call_key *a, const struct call_key *b) {
  return a->task == b->task && a->rsp == b->rsp && a->probe == b->probe;
}

// Keeps the registers and the time of a call; false if there is no room.
CHECKED_ONCE int keep_brief(struct scratch *s, __u32 index) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  if (!s || !probe) return 0;
  const struct call_key key = key_of(s, probe);
  struct brief_bucket *bucket = bucket_of(&key);
  struct brief_call *call = 0;
  if (!bucket) return 0;
  for (int i = 0; i < calls_of_bucket && !call; ++i) {
    if (is_key(&bucket->calls[i].key, &key)) call = &bucket->calls[i];
  }
  for (int i = 0; i < calls_of_bucket && !call; ++i) {
    if (bucket->calls[i].key.task == 0 && __sync_val_compare_and_swap(&bucket->calls[i].key.task, 0, key.task) == 0) {
      call = &bucket->calls[i];
    }
  }
  if (!call) return 0;
  call->key.rsp = key.rsp;
  call->key.probe = key.probe;
  call->time = s->event.time;
  __builtin_memcpy(call->registers, s->event.registers, sizeof(call->registers));
  return 1;
}

static __always_inline bool recall_brief(struct scratch *s, const struct probe *probe) {
  const struct call_key key = key_of(s, probe);
  struct brief_bucket *bucket = bucket_of(&key);
  if (!bucket) return false;
  for (int i = 0; i < calls_of_bucket; ++i) {
    struct brief_call *call = &bucket->calls[i];
    if (!is_key(&call->key, &key)) continue;
    s->event.duration = s->event.time > call->time ? s->event.time - call->time : 0;
    if (probe->fetches_return) __builtin_memcpy(s->entry_registers, call->registers, sizeof(call->registers));
    asm volatile("" ::: "memory");
    call->key.task = 0;
    return true;
  }
  return false;
}

// The entry of a call whose return is wanted.
static __always_inline int pass_call(struct scratch *s, __u32 index) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  struct counters *counters = bpf_map_lookup_elem(&counts, &index);
  if (!s || !probe || !counters) return 0;
  begin_event(s, probe);
  fetch_all(s, index, 0);
  if (is_filtered_here(probe) && !passes(s, index)) {
    count_up(&counters->hits);
    count_up(&counters->filtered);
    return 0;
  }
  if (!probe->fetches && keep_brief(s, index)) return 0;
  // What does not fit is not known at the return.
  const bool fits = s->used <= max_entry_data;
  s->call.used = fits ? s->used : 0;
  if (fits) __builtin_memcpy(s->call.notes, s->notes, sizeof(s->call.notes));
  else __builtin_memset(s->call.notes, 0, sizeof(s->call.notes));
  __builtin_memcpy(s->call.registers, s->event.registers, sizeof(s->call.registers));
  bpf_probe_read_kernel(s->call.data, sizeof(s->call.data), s->data);
  s->call.time = bpf_ktime_get_ns();
  const struct call_key key = key_of(s, probe);
  if (bpf_map_update_elem(&calls, &key, &s->call, BPF_ANY) != 0) count_up(&counters->missed_returns);
  return 0;
}

static __always_inline __u32 log2_of(__u64 value) {
  __u32 bits = 0;
  for (int shift = 32; shift > 0; shift >>= 1) {
    if (value >> shift) {
      value >>= shift;
      bits += shift;
    }
  }
  return bits & 63;
}

// Copies what was known at the entry; false if the entry was not seen, or not wanted.
static __always_inline bool recall(struct scratch *s, const struct probe *probe) {
  if (!probe->fetches && recall_brief(s, probe)) return true;
  const struct call_key key = key_of(s, probe);
  const struct call *call = bpf_map_lookup_elem(&calls, &key);
  if (!call) return false;
  s->event.duration = s->event.time > call->time ? s->event.time - call->time : 0;
  __builtin_memcpy(s->notes, call->notes, sizeof(call->notes));
  __builtin_memcpy(s->entry_registers, call->registers, sizeof(call->registers));
  bpf_probe_read_kernel(s->data, sizeof(call->data), call->data);
  s->used = call->used;
  bpf_map_delete_elem(&calls, &key);
  return true;
}

static __always_inline int pass_return(struct scratch *s, __u32 index) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  struct counters *counters = bpf_map_lookup_elem(&counts, &index);
  struct durations *durations = bpf_map_lookup_elem(&times, &index);
  if (!s || !probe || !counters || !durations) return 0;
  begin_event(s, probe);
  if (!recall(s, probe)) return 0;
  s->event.at_return = 1;
  if (s->used == 0) s->event.entry_fetches = 0;
  s->event.return_fetches = probe->fetches_return;
  fetch_all(s, index, 1);
  count_up(&counters->hits);
  if ((probe->flags & probe_filter_late) && !passes(s, index)) {
    count_up(&counters->filtered);
    return 0;
  }
  __sync_fetch_and_add(&durations->bucket[log2_of(s->event.duration)], 1);
  return tell(s, index);
}

CHECKED_ONCE int pass(struct scratch *s, __u32 index, __u32 kind) {
  const struct probe *probe = bpf_map_lookup_elem(&probes, &index);
  if (!s || !probe) return 0;
  if (probe->flags & probe_needs_task) find_task(s);
  if (kind == trap_return) return pass_return(s, index);
  return probe->flags & probe_at_return ? pass_call(s, index) : pass_entry(s, index);
}

// A filter that needs no more than the task is evaluated before anything else is read.
CHECKED_ONCE int is_rejected(struct scratch *s, __u32 index) {
  struct counters *counters = bpf_map_lookup_elem(&counts, &index);
  if (!s || !counters) return 0;
  find_task(s);
  if (passes(s, index)) return 0;
  count_up(&counters->hits);
  count_up(&counters->filtered);
  return 1;
}

static __always_inline __u32 rejected(struct scratch *s, const struct trap *trap) {
  __u32 bits = 0;
  for (int i = 0; i < max_probes_of_site; ++i) {
    if (i >= trap->count) break;
    if ((trap->early >> i & 1) && is_rejected(s, trap->probes[i])) bits |= 1u << i;
  }
  return bits;
}

// ---- a trap -------------------------------------------------------------------------------

static __always_inline __u64 next_rip(struct kvm_vcpu *vcpu) {
  struct kvm_vcpu___new *newer = (void *)vcpu;
  if (bpf_core_field_exists(newer->arch.rip)) return newer->arch.rip;
  return vcpu->arch.regs[16];
}

static __always_inline __u64 registers_available(struct kvm_vcpu *vcpu) {
  struct kvm_vcpu___new *newer = (void *)vcpu;
  if (bpf_core_field_exists(newer->arch.regs_avail)) return newer->arch.regs_avail[0];
  return vcpu->arch.regs_avail;
}

// Intel's KVM saves all general registers at an exit but RSP; that and CR3 may be stale.
static __always_inline void read_registers(struct scratch *s, struct kvm_vcpu *vcpu, __u32 kind) {
  const __u64 available = registers_available(vcpu);
  __u32 known = 0xffff;
  // One pointer, for the compiler would walk from another one where the verifier allows no step.
  const unsigned long *registers = vcpu->arch.regs;
  asm volatile("" : "+r"(registers));
#pragma unroll
  for (int i = 0; i < 16; ++i) s->event.registers[i] = registers[i];
  if (kind != trap_in_place) {
    s->event.registers[kvm_rsp] = s->event.registers[kvm_r11];
    known &= ~(1u << kvm_r11);
  } else if (!(available >> kvm_rsp & 1)) {
    known &= ~(1u << kvm_rsp);
  }
  s->event.cr3 = 0;
  if (bpf_core_enum_value_exists(enum kvm_reg, VCPU_EXREG_CR3) &&
      (available >> (bpf_core_enum_value(enum kvm_reg, VCPU_EXREG_CR3) & 63) & 1)) {
    s->event.cr3 = vcpu->arch.cr3;
    known |= 1u << 16;
  }
  s->event.known = known;
}

static __always_inline void count_stranger(__u64 rip) {
  const __u32 zero = 0;
  struct strangers *strangers = bpf_map_lookup_elem(&nobodys, &zero);
  if (!strangers) return;
  if (rip >> 63) count_up(&strangers->kernel);
  else count_up(&strangers->user);
}

static __always_inline void begin_hit(struct scratch *s, struct kvm_vcpu *vcpu) {
  s->event.vcpu = vcpu->vcpu_idx;
  s->event.task = 0;
  s->event.pid = s->event.tgid = 0;
  s->apic_id = vcpu->vcpu_id;
  s->has_task = s->has_comm = 0;
  s->user_root = 0;
}

// Whether it was a trap that only counts one probe, and is counted now. All traps are in `traps`, too.
static __always_inline bool is_counted(__u64 rip) {
  const __u64 entry = *(volatile __u64 *)&counting_traps[counting_slot(rip) & (counting_slots - 1)];
  if (entry >> 32 != (rip & 0xffffffff) || rip >> 32 != 0xffffffff || !(__u32)entry) return false;
  const __u32 index = (__u32)entry - 1;
  struct counters *counters = bpf_map_lookup_elem(&counts, &index);
  if (!counters) return false;
  count_up(&counters->hits);
  return true;
}

static __always_inline void on_trap(struct kvm_vcpu *vcpu, __u32 slot) {
  const __u64 rip = next_rip(vcpu);
  if (is_counted(rip)) return;
  const struct trap *trap = bpf_map_lookup_elem(&traps, &rip);
  if (!trap) return count_stranger(rip);
  if (trap->bare) {
    for (int i = 0; i < max_probes_of_site; ++i) {
      if (i >= trap->count) break;
      const __u32 index = trap->probes[i];
      struct counters *counters = bpf_map_lookup_elem(&counts, &index);
      if (counters) count_up(&counters->hits);
    }
    return;
  }
  struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
  if (!s) return;
  begin_hit(s, vcpu);
  const __u32 without = trap->early ? rejected(s, trap) : 0;
  if (without && without == (1u << trap->count) - 1) return;
  const __u32 kind = trap->kind;
  s->event.time = bpf_ktime_get_ns();
  read_registers(s, vcpu, kind);
  for (int i = 0; i < max_probes_of_site; ++i) {
    if (i >= trap->count) break;
    if (!(without >> i & 1)) pass(s, trap->probes[i], kind);
  }
}

static __always_inline bool is_ours(void) { return bpf_get_current_pid_tgid() >> 32 == guest.tgid; }

// Whether this exit is still to be handled. Where several programs may see it, the first one does.
static __always_inline bool is_first(struct kvm_vcpu *vcpu) {
  if (!guest.several_programs) return true;
  const __u32 index = vcpu->vcpu_idx;
  const __u64 number = vcpu->stat.exits + 1;
  __u64 *last = bpf_map_lookup_elem(&handled, &index);
  if (last && *last == number) return false;
  if (last) *last = number;
  return true;
}

static __always_inline void count_rescue(__u32 kind) {
  __u64 *counter = bpf_map_lookup_elem(&rescues, &kind);
  if (counter) count_up(counter);
}

SEC("fexit/kvm_emulate_invd")
int BPF_PROG(on_invd, struct kvm_vcpu *vcpu) {
  if (is_ours() && is_first(vcpu)) on_trap(vcpu, 0);
  return 0;
}

// On a preemptible kernel another vCPU's thread may be within the first program on this CPU: then the
// kernel leaves that out, but not this one.
SEC("fexit/kvm_emulate_invd")
int BPF_PROG(on_missed_invd, struct kvm_vcpu *vcpu) {
  if (!is_ours() || !is_first(vcpu)) return 0;
  count_rescue(rescue_invd);
  on_trap(vcpu, 1);
  return 0;
}

// Other results: not handled here (the slow path follows). A compiler may have left the slow path's
// function as a call in this one; then it has counted this exit already.
#define FASTPATH_REENTER_GUEST 1
SEC("fexit/handle_fastpath_invd")
int BPF_PROG(on_fast_invd, struct kvm_vcpu *vcpu, int result) {
  if (is_ours() && result == FASTPATH_REENTER_GUEST && is_first(vcpu)) on_trap(vcpu, 2);
  return 0;
}

#include "probe/kvm/user.bpf.h"
