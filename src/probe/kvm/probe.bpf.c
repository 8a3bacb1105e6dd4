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
__u64 lone_traps[lone_slots];  // written while we run

// Who came to a trap: read when it is asked for.
enum { who_task = 1, who_ids = 2, who_comm = 4 };
struct who {
  __u32 asked, known;  // of these bits
  __u64 task;
  __s32 pid, tgid;
  __u64 comm[2];
  __u32 apic_id, unused;
};

struct note {  // of a fetch, for filters
  __u64 value;
  __u16 at, size;  // its bytes, in `data`
  __u8 ok, cut;    // as in struct fetched
  __u16 unused;
};

// A call under way. Of a probe that may keep more of its entries (probe_long) the data are longer.
#define CALL(entry_data)                                 \
  {                                                      \
    __u64 time;                                          \
    __u64 registers[16];                                 \
    struct caller caller;                                \
    __u32 undecided; /* the filter, before the return */ \
    __u32 used;                                          \
    struct note notes[max_fetches];                      \
    __u8 data[entry_data];                               \
  }
struct call CALL(max_entry_data);
struct long_call CALL(max_long_data);

// What one run works on. The event is sent as it stands here, with its data.
struct scratch {
  struct event event;
  __u8 data[max_event_data + max_fetch_size + 64];
  __u64 used;       // of data
  __u64 user_root;  // of the current task's page table, once it is known
  struct who who;
  __u64 entry_registers[16];
  struct note notes[2 * max_fetches];
  __u64 undecided;  // the filter asks for what may be known at the return
  struct long_call call;
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
MAP(BPF_MAP_TYPE_ARRAY, max_vcpus, __u32, __u64,
    handled);  // of each vCPU: the last exit, counted from 1
MAP(BPF_MAP_TYPE_ARRAY, rescue_kinds, __u32, __u64,
    rescues);  // traps that only the second program saw

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, max_calls);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct call_key);
  __type(value, struct call);
} calls SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, max_calls);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct call_key);
  __type(value, struct long_call);
} long_calls SEC(".maps");

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
static __always_inline void count_up(__u64* counter) { __sync_fetch_and_add(counter, 1); }

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
static __always_inline bool read_host(void* into, __u32 size, __u64 host) {
  return host != 0 && bpf_probe_read_user(into, size, (const void*)host) == 0;
}

#define PHYSICAL_MASK 0x000ffffffffff000ull

// A page table walk; the host's address, or 0.
CHECKED_ONCE __u64 walk(__u64 root, __u64 address) {
  const __u32 above = guest.five_level ? 7 : 16;  // bits that repeat the sign
  if ((__u64)((__s64)(address << above) >> above) != address) return 0;
  __u64 table = root & PHYSICAL_MASK;
  for (int shift = guest.five_level ? 48 : 39; shift >= 12; shift -= 9) {
    __u64 entry = 0;
    const __u64 at = table + ((address >> shift & 511) << 3);
    if (!read_host(&entry, sizeof(entry), physical_to_host(at)) || !(entry & 1)) return 0;
    const __u64 inside = (1ull << shift) - 1;
    if (shift == 12 || (entry & 0x80)) {
      if (shift > 30) return 0;  // there are no such pages
      return physical_to_host((entry & PHYSICAL_MASK & ~inside) | (address & inside));
    }
    table = entry & PHYSICAL_MASK;
  }
  return 0;
}

static __always_inline bool in_window(const volatile struct window* window, __u64 address) {
  return address >= window->start && address < window->end;
}

static __always_inline __u64 kernel_to_host(__u64 address) {
  if (in_window(&guest.direct_map, address))
    return physical_to_host(address - guest.direct_map.delta);
  if (in_window(&guest.image, address)) return physical_to_host(address - guest.image.delta);
  return walk(guest.root, address);
}

CHECKED_ONCE __u64 user_root_of(struct scratch* s) {
  if (!s || !(s->who.known & who_ids)) return 0;
  if (s->user_root) return s->user_root;
  if (s->event.known >> 16 & 1) {  // AMD: the kernel runs on the task's own table
    s->user_root = s->event.cr3 & PHYSICAL_MASK;
    return s->user_root;
  }
  __u64 mm = 0, pgd = 0;
  if (!read_host(&mm, sizeof(mm), kernel_to_host(s->who.task + guest.mm_offset)) || !mm) return 0;
  if (!read_host(&pgd, sizeof(pgd), kernel_to_host(mm + guest.pgd_offset))) return 0;
  if (!in_window(&guest.direct_map, pgd)) return 0;
  s->user_root = pgd - guest.direct_map.delta;
  return s->user_root;
}

static __always_inline __u64 to_host(struct scratch* s, __u64 address) {
  if (address >> 63) return kernel_to_host(address);
  const __u64 root = user_root_of(s);
  return root ? walk(root, address) : 0;
}

static __always_inline __u64 task_of(const struct who* who) {
  const __u64 apic_id = opaque(who->apic_id);
  __u64 task = 0;
  return apic_id < max_apic_id && read_host(&task, sizeof(task), guest.current[apic_id]) ? task : 0;
}

static __always_inline bool read_ids(struct who* who) {
  __s32 ids[2] = {};
  const bool adjacent = guest.tgid_offset == guest.pid_offset + 4;
  if (!read_host(ids, adjacent ? 8 : 4, kernel_to_host(who->task + guest.pid_offset))) return false;
  if (!adjacent && !read_host(&ids[1], 4, kernel_to_host(who->task + guest.tgid_offset)))
    return false;
  who->pid = ids[0];
  who->tgid = ids[1];
  return true;
}

static __always_inline bool read_comm(struct who* who) {
  __u64 comm[2] = {};
  if (!read_host(comm, sizeof(comm), kernel_to_host(who->task + guest.comm_offset))) return false;
  who->comm[0] = comm[0];
  who->comm[1] = comm[1] & ~(0xffull << 56);
  return true;
}

// Which of `wanted` is known now.
CHECKED_ONCE __u32 find(struct who* who, __u32 wanted) {
  if (!who) return 0;
  const __u32 missing = (wanted | who_task) & ~who->asked;
  __u32 known = who->known;
  who->asked |= missing;
  if (missing & who_task) {
    who->task = task_of(who);
    if (who->task) known |= who_task;
  }
  if (known & who_task) {
    if ((missing & who_ids) && read_ids(who)) known |= who_ids;
    if ((missing & who_comm) && read_comm(who)) known |= who_comm;
  }
  who->known = known;
  return known & wanted;
}

static __always_inline void tell_who(struct who* who, struct event* event) {
  event->task = find(who, who_ids | who_comm) & who_ids ? who->task : 0;
  event->pid = who->pid;
  event->tgid = who->tgid;
  __u64* comm = (__u64*)event->comm;
  comm[0] = who->comm[0];
  comm[1] = who->comm[1];
}

// ---- what is to be read at a hit ----------------------------------------------------------

// Up to `size` bytes, to the end of the page; of a string up to its NUL. How many came.
static __always_inline __u32 read_piece(struct scratch* s, __u64 at, __u64 address, __u64 size,
                                        bool is_string, bool* ended) {
  const __u64 host = to_host(s, address);
  at = opaque(at);
  size = opaque(size);
  if (!host || at > max_event_data || size == 0 || size > max_fetch_size) return 0;
  if (!is_string) return bpf_probe_read_user(&s->data[at], size, (const void*)host) == 0 ? size : 0;
  const long length = bpf_probe_read_user_str(&s->data[at], size, (const void*)host);
  if (length < 0) return 0;
  if (length < (long)size) {
    *ended = true;
    return length > 0 ? length - 1 : 0;
  }
  // In place of the last byte the helper has put a NUL, and does not tell whether one was there.
  const __u64 last = at + size - 1;
  if (last > max_event_data + max_fetch_size) return 0;
  if (bpf_probe_read_user(&s->data[last], 1, (const void*)(host + size - 1)) != 0) return 0;
  *ended = s->data[last] == 0;
  return *ended ? size - 1 : size;
}

CHECKED_ONCE int read_bytes(struct scratch* s, __u64 address, __u32 wanted, __u32 is_string) {
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

CHECKED_ONCE int run_fetch(struct scratch* s, const struct probe* probe, __u32 which) {
  if (!s || !probe) return 0;
  const __u64 number = opaque(which) & (2 * max_fetches - 1);
  const struct fetch* fetch = &probe->fetch[number];
  struct note* note = &s->notes[number];
  const __u64 at = opaque(s->used);
  note->ok = note->cut = note->size = 0;
  note->value = 0;
  if (at > max_event_data - sizeof(struct fetched)) return 0;
  struct fetched* head = (struct fetched*)&s->data[at];
  *head = (struct fetched){};
  s->used = at + sizeof(*head);
  note->at = s->used;

  const __u32 base = fetch->base & 15;
  const bool of_task = fetch->base == fetch_of_task;
  if (of_task && !find(&s->who, who_task)) return 0;
  if (!of_task && !fetch->from_entry && !(s->event.known >> base & 1)) return 0;
  __u64 value = of_task             ? s->who.task
                : fetch->from_entry ? s->entry_registers[base]
                                    : s->event.registers[base];
  bool is_null = false;
  for (int i = 0; i < max_fetch_steps; ++i) {
    if (i >= fetch->step_count || is_null) break;
    is_null = value == 0;
    if (!is_null && !read_host(&value, 8, to_host(s, value + (__s64)fetch->steps[i]))) return 0;
  }
  if (is_null && fetch->what == fetch_value) return 0;  // what stands behind it is not known
  is_null = is_null || value == 0;
  if (!is_null) value += (__s64)fetch->offset;
  head->value = note->value = value;
  head->ok = note->ok = fetched_value;
  if (fetch->what == fetch_value || is_null) {
    head->ok = note->ok = fetched_value | fetched_all;
    return 0;
  }
  const __u32 got = read_bytes(s, value, fetch->size, fetch->what == fetch_string);
  const __u64 size = opaque(got & 0xffff), start = opaque(s->used);
  const bool whole = fetch->what == fetch_string ? (got >> 16) != 0 : size == fetch->size;
  const bool cut = fetch->what == fetch_string && !whole && size == fetch->size;
  if (!whole && !cut) return 0;
  if (size > max_fetch_size || start > max_event_data) return 0;
  head->size = note->size = size;
  head->ok = note->ok = fetched_value | fetched_all;
  head->cut = note->cut = cut;
  s->used = start + ((size + 7) & ~7ull);
  return 0;
}

// ---- filters ------------------------------------------------------------------------------

static __always_inline bool compare(__u32 how, bool less, bool equal) {
  switch (how) {
    case term_equal:
      return equal;
    case term_unequal:
      return !equal;
    case term_less:
      return less;
    case term_less_equal:
      return less || equal;
    case term_greater:
      return !less && !equal;
    default:
      return !less;
  }
}

static __always_inline bool compare_numbers(const struct term* term, __u64 value) {
  const __u32 unused = (64 - term->bits) & 63;
  if (term->is_signed == signed_by_size && !(value >> 32)) value = (__s64)(__s32)value;
  value <<= unused;
  if (term->is_signed) {
    const __s64 have = (__s64)value >> unused;
    return compare(term->compare, have < term->number, have == term->number);
  }
  value >>= unused;
  return compare(term->compare, value < (__u64)term->number, value == (__u64)term->number);
}

static __always_inline bool compare_signed(const struct term* term, __s64 value) {
  return compare(term->compare, value < term->number, value == term->number);
}

static __always_inline bool compare_comm(const struct who* who, const struct term* term) {
  const __u64 wrong = ((who->comm[0] ^ term->text[0]) & term->mask[0]) |
                      ((who->comm[1] ^ term->text[1]) & term->mask[1]);
  return compare(term->compare, false, wrong == 0);
}

// What is behind its bytes is no concern of a text: the next value, or an earlier event's. A null pointer
// and a text that goes on are equal to none.
static __always_inline bool compare_text(const struct scratch* s, const struct term* term,
                                         const struct note* note) {
  const __u64 at = opaque(note->at);
  if (at > max_event_data) return false;
  const __u64* text = (const __u64*)&s->data[at & ~7ull];
  __u64 wrong = note->size ^ term->text_size;
  for (int i = 0; i < max_filter_text / 8; ++i) wrong |= (text[i] ^ term->text[i]) & term->mask[i];
  return compare(term->compare, false, wrong == 0 && note->value != 0 && !note->cut);
}

// A term that asks for the task.
static __always_inline bool holds_of(struct who* who, const struct term* term) {
  if (term->field == term_comm) return find(who, who_comm) && compare_comm(who, term);
  return find(who, who_ids) && compare_signed(term, term->field == term_pid ? who->pid : who->tgid);
}

CHECKED_ONCE int holds(struct scratch* s, const struct probe* probe, __u32 which) {
  if (!s || !probe) return 0;
  const struct term* term = &probe->term[opaque(which) & (max_terms - 1)];
  if (term->field <= term_comm) return holds_of(&s->who, term);
  if (term->field == term_cpu) return compare_signed(term, s->event.vcpu);
  if (term->field == term_duration) {
    return s->event.at_return && compare(term->compare, s->event.duration < (__u64)term->number,
                                         s->event.duration == (__u64)term->number);
  }
  const __u64 fetch = term->index + (term->field == term_fetch_return ? max_fetches : 0);
  const struct note* note = &s->notes[opaque(fetch) & (2 * max_fetches - 1)];
  if (!term->is_text) return (note->ok & fetched_value) && compare_numbers(term, note->value);
  if (!(note->ok & fetched_all) && term->again) {
    if (!s->event.at_return) {
      s->undecided = 1;
      return 0;
    }
    note = &s->notes[max_fetches + (opaque(term->again - 1) & (max_fetches - 1))];
  }
  return (note->ok & fetched_all) && compare_text(s, term, note);
}

// The stack of truths is a word.
CHECKED_ONCE int passes(struct scratch* s, const struct probe* probe) {
  if (!s || !probe) return 0;
  __u64 stack = 0;
  for (int i = 0; i < max_filter_steps; ++i) {
    if (i >= probe->steps) break;
    const __u64 top = stack & 1, below = stack >> 1 & 1, rest = stack >> 2 << 1;
    switch (probe->step[i].kind) {
      case step_term:
        stack = stack << 1 | (holds(s, probe, probe->step[i].term) != 0);
        break;
      case step_both:
        stack = rest | (top & below);
        break;
      case step_either:
        stack = rest | (top | below);
        break;
      default:
        stack ^= 1;
        break;
    }
  }
  return stack & 1;
}

// ---- calls under way ----------------------------------------------------------------------

static __always_inline struct call_key key_of(struct who* who, const struct probe* probe,
                                              __u64 rsp) {
  return (struct call_key){
      .rsp = rsp, .task = probe->steps && find(who, who_task) ? who->task : 0, .probe = probe->id};
}

// A stack is of one CPU at a time, so only a free place is fought for.
static __always_inline struct brief_bucket* bucket_of(const struct call_key* key) {
  const __u64 mixed = (key->rsp ^ key->probe << 44) * 0x9e3779b97f4a7c15ull;
  const __u32 number = (mixed >> 40) & (max_buckets - 1);
  return bpf_map_lookup_elem(&brief_calls, &number);
}

static __always_inline bool is_key(const struct call_key* a, const struct call_key* b) {
  return a->rsp == b->rsp && a->task == b->task && a->probe == b->probe;
}

// A place for the call; 0 if there is none.
static __always_inline struct brief_call* keep_brief(const struct call_key* key, __u64 time) {
  struct brief_bucket* bucket = bucket_of(key);
  struct brief_call* call = 0;
  if (!bucket) return 0;
  for (int i = 0; i < calls_of_bucket && !call; ++i) {
    if (is_key(&bucket->calls[i].key, key)) call = &bucket->calls[i];
  }
  for (int i = 0; i < calls_of_bucket && !call; ++i) {
    if (bucket->calls[i].key.rsp == 0 &&
        __sync_val_compare_and_swap(&bucket->calls[i].key.rsp, 0, key->rsp) == 0) {
      call = &bucket->calls[i];
    }
  }
  if (!call) return 0;
  call->key.task = key->task;
  call->key.probe = key->probe;
  call->time = time;
  return call;
}

static __always_inline struct brief_call* recall_brief(const struct call_key* key) {
  struct brief_bucket* bucket = bucket_of(key);
  if (!bucket) return 0;
  for (int i = 0; i < calls_of_bucket; ++i) {
    if (is_key(&bucket->calls[i].key, key)) return &bucket->calls[i];
  }
  return 0;
}

static __always_inline void forget_brief(struct brief_call* call) {
  asm volatile("" ::: "memory");
  call->key.rsp = 0;
}

// Who calls is who it is at the entry: a call may give the task another name, and even another number.
static __always_inline void keep_caller(struct scratch* s, const struct probe* probe,
                                        struct caller* caller) {
  const __u32 known = probe->flags & probe_keeps_caller ? find(&s->who, who_ids | who_comm) : 0;
  caller->known = known;
  if (!known) return;
  caller->task = s->who.task;
  caller->pid = s->who.pid;
  caller->tgid = s->who.tgid;
  caller->comm[0] = s->who.comm[0];
  caller->comm[1] = s->who.comm[1];
}

static __always_inline void recall_caller(struct scratch* s, const struct caller* caller) {
  if (!caller->known) return;
  s->who.asked = who_task | who_ids | who_comm;
  s->who.known = who_task | caller->known;
  s->who.task = caller->task;
  s->who.pid = caller->pid;
  s->who.tgid = caller->tgid;
  s->who.comm[0] = caller->comm[0];
  s->who.comm[1] = caller->comm[1];
}

// A call counts as missed until it returns: so those that never do are, whatever became of them.
static __always_inline void count_return(struct counters* counters) {
  __sync_fetch_and_add(&counters->missed_returns, -1ull);
}

static __always_inline __u64 time_between(__u64 start, __u64 end) {
  return end > start ? end - start : 0;
}

// ---- one probe ----------------------------------------------------------------------------

static __always_inline void fetch_all(struct scratch* s, const struct probe* probe,
                                      __u32 at_return) {
  const __u32 count = at_return ? probe->fetches_return : probe->fetches;
  for (int i = 0; i < max_fetches; ++i) {
    if (i >= count) break;
    run_fetch(s, probe, at_return ? max_fetches + i : i);
  }
}

CHECKED_ONCE int is_above_rate(__u32 index, __u64 now, __u64 limit) {
  struct rate* rate = bpf_map_lookup_elem(&rates, &index);
  if (!rate) return 0;
  const __u64 second = now / 1000000000;
  if (rate->second != second) {
    rate->second = second;
    rate->told = 0;
  }
  return __sync_fetch_and_add(&rate->told, 1) >= limit;
}

// Whether the hit is to be told, too.
static __always_inline bool is_told(const struct probe* probe, struct counters* counters,
                                    __u32 index, __u64 time) {
  if (probe->flags & probe_counts_only) return false;
  if (!probe->rate_limit || !is_above_rate(index, time, probe->rate_limit)) return true;
  count_up(&counters->rate_limited);
  return false;
}

static __always_inline __u64 wake_of(const struct counters* counters) {
  const bool wakes = counters->told % wake_interval == 0 &&
                     bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= ring_wake;
  return wakes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

struct brief_event {
  struct event event;
  __u8 data[brief_event_data];
};

// Into the ring, by words. Most events with data are so small.
static __always_inline bool send_brief(const struct scratch* s, __u64 wake) {
  struct brief_event* event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
  if (!event) return false;
  __builtin_memcpy(&event->event, &s->event, sizeof(event->event));
  __builtin_memcpy(event->data, s->data, sizeof(event->data));
  bpf_ringbuf_submit(event, wake);
  return true;
}

CHECKED_ONCE int tell(struct scratch* s, const struct probe* probe, struct counters* counters,
                      __u32 index) {
  if (!s || !probe || !counters || !is_told(probe, counters, index, s->event.time)) return 0;
  const __u64 size = opaque(s->used);
  if (size > max_event_data + max_fetch_size) return 0;
  s->event.probe = probe->id;
  s->event.size = size;
  tell_who(&s->who, &s->event);
  const __u64 wake = wake_of(counters);
  const bool sent = size <= brief_event_data
                        ? send_brief(s, wake)
                        : bpf_ringbuf_output(&ring, &s->event, sizeof(s->event) + size, wake) == 0;
  count_up(sent ? &counters->told : &counters->lost);
  return 0;
}

static __always_inline void begin_event(struct scratch* s, const struct probe* probe) {
  s->used = 0;
  s->undecided = 0;
  s->event.at_return = 0;
  s->event.duration = 0;
  s->event.entry_fetches = probe->fetches;
  s->event.return_fetches = 0;
}

// Whether the filter is still to be evaluated when the entry's values have been read.
static __always_inline bool is_filtered_here(const struct probe* probe) {
  return probe->steps && !(probe->flags & (probe_filter_early | probe_filter_late));
}

static __always_inline void count_filtered(struct counters* counters) {
  count_up(&counters->hits);
  count_up(&counters->filtered);
}

static __always_inline int pass_entry(struct scratch* s, const struct probe* probe,
                                      struct counters* counters, __u32 index) {
  begin_event(s, probe);
  fetch_all(s, probe, 0);
  if (is_filtered_here(probe) && !passes(s, probe)) {
    count_filtered(counters);
    return 0;
  }
  count_up(&counters->hits);
  return tell(s, probe, counters, index);
}

// What is kept of an entry, in `s->call`, as far as it fits: the rest is not known at the return.
static __always_inline void describe_call(struct scratch* s, const struct probe* probe) {
  const bool is_long = probe->flags & probe_long;
  const bool fits = s->used <= (is_long ? max_long_data : max_entry_data);
  s->call.used = fits ? s->used : 0;
  s->call.undecided = s->undecided;
  if (fits)
    __builtin_memcpy(s->call.notes, s->notes, sizeof(s->call.notes));
  else
    __builtin_memset(s->call.notes, 0, sizeof(s->call.notes));
  __builtin_memcpy(s->call.registers, s->event.registers, sizeof(s->call.registers));
  if (is_long)
    bpf_probe_read_kernel(s->call.data, max_long_data, s->data);
  else
    bpf_probe_read_kernel(s->call.data, max_entry_data, s->data);
  keep_caller(s, probe, &s->call.caller);
  s->call.time = bpf_ktime_get_ns();
}

// The entry of a call whose return is wanted.
static __always_inline int pass_call(struct scratch* s, const struct probe* probe,
                                     struct counters* counters) {
  begin_event(s, probe);
  fetch_all(s, probe, 0);
  if (is_filtered_here(probe) && !passes(s, probe) && !s->undecided) {
    count_filtered(counters);
    return 0;
  }
  count_up(&counters->missed_returns);
  const struct call_key key = key_of(&s->who, probe, s->event.registers[kvm_rsp]);
  if (!probe->fetches) {
    struct brief_call* call = keep_brief(&key, s->event.time);
    if (call) keep_caller(s, probe, &call->caller);
    if (call && probe->fetches_return)
      __builtin_memcpy(call->registers, s->event.registers, sizeof(call->registers));
    if (call) return 0;
  }
  describe_call(s, probe);
  if (probe->flags & probe_long)
    bpf_map_update_elem(&long_calls, &key, &s->call, BPF_ANY);
  else
    bpf_map_update_elem(&calls, &key, &s->call, BPF_ANY);
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

static __always_inline void count_duration(__u32 index, __u64 duration) {
  struct durations* durations = bpf_map_lookup_elem(&times, &index);
  if (durations) __sync_fetch_and_add(&durations->bucket[log2_of(duration)], 1);
}

static __always_inline void recall_call(struct scratch* s, const struct long_call* call) {
  s->event.duration = time_between(call->time, s->event.time);
  __builtin_memcpy(s->notes, call->notes, sizeof(call->notes));
  __builtin_memcpy(s->entry_registers, call->registers, sizeof(call->registers));
  recall_caller(s, &call->caller);
  s->undecided = call->undecided;
  s->used = call->used;
}

static __always_inline void recall_brief_call(struct scratch* s, const struct probe* probe,
                                              struct brief_call* call) {
  s->event.duration = time_between(call->time, s->event.time);
  recall_caller(s, &call->caller);
  if (probe->fetches_return)
    __builtin_memcpy(s->entry_registers, call->registers, sizeof(call->registers));
  forget_brief(call);
}

// Copies what was known at the entry; false if the entry was not seen, or not wanted.
static __always_inline bool recall(struct scratch* s, const struct probe* probe) {
  const struct call_key key = key_of(&s->who, probe, s->event.registers[kvm_rsp]);
  struct brief_call* brief = probe->fetches ? 0 : recall_brief(&key);
  if (brief) {
    recall_brief_call(s, probe, brief);
    return true;
  }
  if (probe->flags & probe_long) {
    const struct long_call* call = bpf_map_lookup_elem(&long_calls, &key);
    if (!call) return false;
    recall_call(s, call);
    bpf_probe_read_kernel(s->data, max_long_data, call->data);
    bpf_map_delete_elem(&long_calls, &key);
    return true;
  }
  const struct call* call = bpf_map_lookup_elem(&calls, &key);
  if (!call) return false;
  recall_call(s, (const struct long_call*)call);  // the same but for its end
  bpf_probe_read_kernel(s->data, max_entry_data, call->data);
  bpf_map_delete_elem(&calls, &key);
  return true;
}

static __always_inline int pass_return(struct scratch* s, const struct probe* probe,
                                       struct counters* counters, __u32 index) {
  begin_event(s, probe);
  if (!recall(s, probe)) return 0;
  count_return(counters);
  s->event.at_return = 1;
  if (s->used == 0) s->event.entry_fetches = 0;
  s->event.return_fetches = probe->fetches_return;
  fetch_all(s, probe, 1);
  if (((probe->flags & probe_filter_late) || s->undecided) && !passes(s, probe)) {
    count_filtered(counters);
    return 0;
  }
  count_up(&counters->hits);
  count_duration(index, s->event.duration);
  return tell(s, probe, counters, index);
}

CHECKED_ONCE int pass(struct scratch* s, __u32 index, __u32 kind) {
  const struct probe* probe = bpf_map_lookup_elem(&probes, &index);
  struct counters* counters = bpf_map_lookup_elem(&counts, &index);
  if (!s || !probe || !counters) return 0;
  if (probe->flags & probe_needs_task) find(&s->who, who_ids);
  if (kind == trap_return) return pass_return(s, probe, counters, index);
  return probe->flags & probe_at_return ? pass_call(s, probe, counters)
                                        : pass_entry(s, probe, counters, index);
}

// ---- a trap -------------------------------------------------------------------------------

static __always_inline __u64 next_rip(struct kvm_vcpu* vcpu) {
  struct kvm_vcpu___new* newer = (void*)vcpu;
  if (bpf_core_field_exists(newer->arch.rip)) return newer->arch.rip;
  return vcpu->arch.regs[16];
}

static __always_inline __u64 registers_available(struct kvm_vcpu* vcpu) {
  struct kvm_vcpu___new* newer = (void*)vcpu;
  if (bpf_core_field_exists(newer->arch.regs_avail)) return newer->arch.regs_avail[0];
  return vcpu->arch.regs_avail;
}

// Intel's KVM saves all general registers at an exit but RSP; that and CR3 may be stale.
static __always_inline void read_registers(struct event* event, struct kvm_vcpu* vcpu, __u32 kind) {
  const __u64 available = registers_available(vcpu);
  __u32 known = 0xffff;
  // One pointer, for the compiler would walk from another one where the verifier allows no step.
  const unsigned long* registers = vcpu->arch.regs;
  asm volatile("" : "+r"(registers));
#pragma unroll
  for (int i = 0; i < 16; ++i) event->registers[i] = registers[i];
  if (kind != trap_in_place) {
    event->registers[kvm_rsp] = registers[kvm_r11];
    known &= ~(1u << kvm_r11);
  } else if (!(available >> kvm_rsp & 1)) {
    known &= ~(1u << kvm_rsp);
  }
  event->cr3 = 0;
  if (bpf_core_enum_value_exists(enum kvm_reg, VCPU_EXREG_CR3) &&
      (available >> (bpf_core_enum_value(enum kvm_reg, VCPU_EXREG_CR3) & 63) & 1)) {
    event->cr3 = vcpu->arch.cr3;
    known |= 1u << 16;
  }
  event->known = known;
}

static __always_inline void count_stranger(__u64 rip) {
  const __u32 zero = 0;
  struct strangers* strangers = bpf_map_lookup_elem(&nobodys, &zero);
  if (!strangers) return;
  if (rip >> 63)
    count_up(&strangers->kernel);
  else
    count_up(&strangers->user);
}

static __always_inline void begin_hit(struct scratch* s, struct kvm_vcpu* vcpu) {
  s->event.vcpu = vcpu->vcpu_idx;
  s->user_root = 0;
  s->who = (struct who){.apic_id = vcpu->vcpu_id};
}

// A filter that needs no more than the task is evaluated before anything else is read.
static __always_inline bool is_rejected(struct scratch* s, const struct probe* probe,
                                        struct counters* counters) {
  const bool is_one = probe->steps == 1 && probe->term[0].field <= term_comm;
  if (is_one ? holds_of(&s->who, &probe->term[0]) : passes(s, probe)) return false;
  count_filtered(counters);
  return true;
}

static __always_inline bool tell_plainly(struct scratch* s, struct kvm_vcpu* vcpu,
                                         const struct probe* probe, __u32 kind, __u64 time,
                                         __u64 duration, __u64 wake) {
  struct event* event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
  if (!event) return false;
  event->time = time;
  event->duration = duration;
  read_registers(event, vcpu, kind);
  event->probe = probe->id;
  event->vcpu = vcpu->vcpu_idx;
  event->at_return = kind == trap_return;
  event->entry_fetches = event->return_fetches = event->unused = 0;
  tell_who(&s->who, event);
  event->size = event->padding = 0;
  bpf_ringbuf_submit(event, wake);
  return true;
}

// A hit of a probe that reads nothing but who came: without the way through `scratch`. False if that was not possible.
static __always_inline bool pass_plainly(struct scratch* s, struct kvm_vcpu* vcpu,
                                         const struct probe* probe, struct counters* counters,
                                         __u32 index, __u32 kind) {
  const __u64 time = bpf_ktime_get_ns();
  __u64 duration = 0;
  if (probe->flags & probe_at_return) {
    const struct call_key key = key_of(&s->who, probe, vcpu->arch.regs[kvm_r11]);
    struct brief_call* call = kind == trap_return ? recall_brief(&key) : keep_brief(&key, time);
    if (!call) return false;
    if (kind != trap_return) {
      keep_caller(s, probe, &call->caller);
      count_up(&counters->missed_returns);
      return true;
    }
    count_return(counters);
    duration = time_between(call->time, time);
    recall_caller(s, &call->caller);
    forget_brief(call);
    count_duration(index, duration);
  }
  count_up(&counters->hits);
  if (!is_told(probe, counters, index, time)) return true;
  const bool sent = tell_plainly(s, vcpu, probe, kind, time, duration, wake_of(counters));
  count_up(sent ? &counters->told : &counters->lost);
  return true;
}

static __always_inline void on_lone_trap(struct kvm_vcpu* vcpu, __u32 slot, __u32 entry) {
  const __u32 index = (entry & lone_index) - 1, kind = entry >> lone_kind_shift;
  struct counters* counters = bpf_map_lookup_elem(&counts, &index);
  if (!counters) return;
  if (entry & lone_bare) return count_up(&counters->hits);
  const struct probe* probe = bpf_map_lookup_elem(&probes, &index);
  struct scratch* s = bpf_map_lookup_elem(&scratches, &slot);
  if (!probe || !s) return;
  begin_hit(s, vcpu);
  if ((entry & lone_early) && is_rejected(s, probe, counters)) return;
  if ((probe->flags & probe_plain) && pass_plainly(s, vcpu, probe, counters, index, kind)) return;
  s->event.time = bpf_ktime_get_ns();
  read_registers(&s->event, vcpu, kind);
  pass(s, index, kind);
}

static __always_inline __u32 rejected(struct scratch* s, const struct trap* trap) {
  __u32 bits = 0;
  for (int i = 0; i < max_probes_of_site; ++i) {
    if (i >= trap->count) break;
    if (!(trap->early >> i & 1)) continue;
    const __u32 index = trap->probes[i];
    const struct probe* probe = bpf_map_lookup_elem(&probes, &index);
    struct counters* counters = bpf_map_lookup_elem(&counts, &index);
    if (probe && counters && is_rejected(s, probe, counters)) bits |= 1u << i;
  }
  return bits;
}

// Of any number of probes.
static __always_inline void on_shared_trap(struct kvm_vcpu* vcpu, __u32 slot,
                                           const struct trap* trap) {
  if (trap->bare) {
    for (int i = 0; i < max_probes_of_site; ++i) {
      if (i >= trap->count) break;
      const __u32 index = trap->probes[i];
      struct counters* counters = bpf_map_lookup_elem(&counts, &index);
      if (counters) count_up(&counters->hits);
    }
    return;
  }
  struct scratch* s = bpf_map_lookup_elem(&scratches, &slot);
  if (!s) return;
  begin_hit(s, vcpu);
  const __u32 without = trap->early ? rejected(s, trap) : 0;
  if (without && without == (1u << trap->count) - 1) return;
  const __u32 kind = trap->kind;
  s->event.time = bpf_ktime_get_ns();
  read_registers(&s->event, vcpu, kind);
  for (int i = 0; i < max_probes_of_site; ++i) {
    if (i >= trap->count) break;
    if (!(without >> i & 1)) pass(s, trap->probes[i], kind);
  }
}

static __always_inline void on_trap(struct kvm_vcpu* vcpu, __u32 slot) {
  const __u64 rip = next_rip(vcpu);
  const __u64 lone = *(volatile __u64*)&lone_traps[lone_slot(rip) & (lone_slots - 1)];
  if ((__u32)lone && lone >> 32 == (rip & 0xffffffff) && rip >> 32 == 0xffffffff)
    return on_lone_trap(vcpu, slot, (__u32)lone);
  const struct trap* trap = bpf_map_lookup_elem(&traps, &rip);  // they are all there
  if (trap)
    on_shared_trap(vcpu, slot, trap);
  else
    count_stranger(rip);
}

static __always_inline bool is_ours(void) {
  const struct task_struct* task = (void*)bpf_get_current_task_btf();
  return task->tgid == guest.tgid;
}

// Whether this exit is still to be handled. Where several programs may see it, the first one does.
static __always_inline bool is_first(struct kvm_vcpu* vcpu) {
  if (!guest.several_programs) return true;
  const __u32 index = vcpu->vcpu_idx;
  const __u64 number = vcpu->stat.exits + 1;
  __u64* last = bpf_map_lookup_elem(&handled, &index);
  if (last && *last == number) return false;
  if (last) *last = number;
  return true;
}

static __always_inline void count_rescue(__u32 kind) {
  __u64* counter = bpf_map_lookup_elem(&rescues, &kind);
  if (counter) count_up(counter);
}

SEC("fexit/kvm_emulate_invd")
int BPF_PROG(on_invd, struct kvm_vcpu* vcpu) {
  if (is_ours() && is_first(vcpu)) on_trap(vcpu, 0);
  return 0;
}

// On a preemptible kernel another vCPU's thread may be within the first program on this CPU: then the
// kernel leaves that out, but not this one.
SEC("fexit/kvm_emulate_invd")
int BPF_PROG(on_missed_invd, struct kvm_vcpu* vcpu) {
  if (!is_ours() || !is_first(vcpu)) return 0;
  count_rescue(rescue_invd);
  on_trap(vcpu, 1);
  return 0;
}

// Other results: not handled here (the slow path follows). A compiler may have left the slow path's
// function as a call in this one; then it has counted this exit already.
#define FASTPATH_REENTER_GUEST 1
SEC("fexit/handle_fastpath_invd")
int BPF_PROG(on_fast_invd, struct kvm_vcpu* vcpu, int result) {
  if (is_ours() && result == FASTPATH_REENTER_GUEST && is_first(vcpu)) on_trap(vcpu, 2);
  return 0;
}

#include "probe/kvm/user.bpf.h"
