// What the eBPF program in the host's kernel and the engine that loads it tell each other: the
// layout of maps and events. C and C++; all sizes in bytes.
//
//   trap in the guest -> exit -> KVM -> program: sites[next RIP] -> probes[...] -> event
#ifndef VMSIGHT_PROBE_KVM_SHARED_H
#define VMSIGHT_PROBE_KVM_SHARED_H

#include <linux/types.h>

#ifdef __cplusplus
namespace vmsight::kvm {
#endif

enum {
  max_probes = 2048,
  max_traps = 8 * max_probes,  // of a return probe two, and those of trampolines left behind
  max_probes_of_site = 8,
  max_fetches = 16,  // of an entry, and as many of a return
  max_fetch_steps = 3,
  max_fetch_size = 4096,
  max_terms = 16,
  max_filter_steps = 48,
  max_filter_text = 64,  // with its NUL
  max_ranges = 16,       // of guest RAM
  max_apic_id = 1024,
  max_vcpus = 4096,   // KVM_MAX_VCPUS is at most so many
  max_calls = 16384,  // under way, of all return probes
  calls_of_bucket = 4,
  max_buckets = max_calls / calls_of_bucket,
  max_event_data = 8192,
  max_entry_data = 1024,   // of a call, kept until it returns
  max_long_data = 4480,    // of probe_long: max_fetches texts of 256 bytes
  brief_event_data = 128,  // with no more an event is written into the ring where it stays
  lone_bits = 12,
  lone_slots = 1 << lone_bits,
  ring_size = 8 << 20,
  ring_wake = 1 << 20,  // so much is waiting: wake the reader at once
  wake_interval = 256,  // of so many events of a probe one looks how much is waiting
};

enum {
  user_trap_bytes = 4,
  scratch_count = 5,     // one for each program: they may interrupt each other
  rip_in_rax = 1 << 17,  // of user programs RIP is told, in place of RAX, which the trap has taken
};

// Of which function of KVM a trap was seen by the second program only.
enum { rescue_invd, rescue_hypercall, rescue_kinds };

// Registers in KVM's order, which is that of the instruction set.
enum { kvm_rax, kvm_rcx, kvm_rdx, kvm_rbx, kvm_rsp, kvm_rbp, kvm_rsi, kvm_rdi, kvm_r11 = 11 };

enum trap_kind {
  trap_in_place,  // the site itself is the trap
  trap_entry,     // in a trampoline, RSP in R11
  trap_return,
};

// Of kernels. Key: the RIP after the trap. Without probes it is a trampoline that calls still return through.
// Of user programs, in a map of their own. Key: the host's address of the trap, in a page that any number of
// processes may have anywhere.
struct trap {
  __u8 kind, bare;  // bare: all its probes only count
  __u8 early;       // bits of `probes` that have probe_filter_early; none at a return
  __u8 unused;
  __u32 count;
  __u32 probes[max_probes_of_site];  // indices into `probes`
};

// Traps in the kernel that have one probe are in a table of their own too, which costs a hit less: the lower half of
// the next RIP, and below it what the trap's one probe is. Two that have the same slot: one is there.
enum { lone_index = 0xffff, lone_bare = 1 << 16, lone_early = 1 << 17, lone_kind_shift = 18 };
static inline __u32 lone_slot(__u64 next_rip) {
  return ((__u32)next_rip * 0x9e3779b1u) >> (32 - lone_bits);
}
static inline __u64 lone_entry(__u64 next_rip, const struct trap* trap) {
  return next_rip << 32 | (trap->probes[0] + 1) | (trap->bare ? lone_bare : 0) |
         (trap->early ? lone_early : 0) | (__u32)trap->kind << lone_kind_shift;
}

// Bits of `ok`: the value is known; what it points to, too (there may be nothing to point to).
enum { fetched_value = 1, fetched_all = 2 };

// As ProbeFetch.
enum fetch_what { fetch_value, fetch_string, fetch_bytes };
enum { fetch_of_task = 16 };  // as base: not a register, but the task that runs
struct fetch {
  __u8 what, base, step_count, from_entry;
  __u16 size, unused;
  __s32 offset;
  __s32 steps[max_fetch_steps];
};

enum term_field {
  term_pid,
  term_tgid,
  term_comm,
  term_cpu,
  term_fetch,
  term_fetch_return,
  term_duration
};
enum term_compare {
  term_equal,
  term_unequal,
  term_less,
  term_less_equal,
  term_greater,
  term_greater_equal
};
// A number whose type is not known: as an int if it is no larger than one.
enum { unsigned_number, signed_number, signed_by_size };
struct term {
  __u8 field, compare, bits, is_signed;
  __u8 is_text, index, text_size;
  __u8
      again;  // a text that was not there at the entry: this fetch of the return, counted from 1; or 0
  __s64 number;
  __u64 text[max_filter_text / 8];
  __u64 mask[max_filter_text / 8];  // which bytes count
};
enum step_kind { step_term, step_both, step_either, step_negate };
struct filter_step {
  __u8 kind, term;
};

enum probe_flags {
  probe_at_return = 1,
  probe_counts_only = 2,
  probe_needs_task = 4,     // an event is told, or the filter asks for the task
  probe_filter_late = 8,    // the filter asks for the result or the duration
  probe_filter_early = 16,  // it asks for nothing but the task and the CPU
  probe_plain = 32,         // nothing is read but who it was, and no filter is evaluated later
  probe_keeps_caller = 64,  // who it was at the entry is asked for at the return
  probe_long = 128,         // the entry's values may take more than max_entry_data
};
struct probe {
  __u32 id;  // the engine's ProbeId: never used twice
  __u32 flags;
  __u32 fetches, fetches_return;  // how many
  __u32 steps;
  __s32 tgid;  // of user programs: this process only; 0: any
  __u64 rate_limit;
  struct fetch fetch[2 * max_fetches];  // the entry's, then the return's
  struct filter_step step[max_filter_steps];
  struct term term[max_terms];
};

// Of one probe on one CPU of the host.
struct counters {
  __u64 hits, filtered, told, lost;
  __u64
      missed_returns;  // counted up at an entry, and down at its return: only their sum means something
  __u64 rate_limited, foreign;
};
struct rate {
  __u64 second, told;
};
struct durations {
  __u64 bucket[64];
};
// Traps at addresses of no probe.
struct strangers {
  __u64 kernel, user;
};

// A call under way. Entry and return have the same RSP, and no other call has it meanwhile: each is on a stack of
// its own. One that never returns is overwritten by the next one there.
struct call_key {
  __u64 rsp;    // never 0
  __u64 task;   // with a filter: that nobody's return is taken for one which never came; else 0
  __u64 probe;  // its id
};

struct caller {
  __u64 task, comm[2];
  __s32 pid, tgid;
  __u32 known, unused;  // as in the program's struct who; 0: nothing was asked
};

// One of which nothing but the registers is kept. Free: RSP 0.
struct brief_call {
  struct call_key key;
  __u64 time;
  struct caller caller;
  __u64 registers[16];  // if the probe reads something at returns
};
struct brief_bucket {
  struct brief_call calls[calls_of_bucket];
};

struct fetched {
  __u64 value;
  __u16 size;  // of the bytes that follow, padded to 8
  __u8 ok;     // fetched_value, fetched_all
  __u8 cut;
  __u32 unused;
};

// In the ring: this, then `entry_fetches` and `return_fetches` times struct fetched with bytes.
struct event {
  __u64 time, duration;
  __u64 registers[16];
  __u64 cr3;
  __u32 known;  // bits of `registers`, 1 << 16 for cr3, rip_in_rax
  __u32 probe;  // its id
  __u32 vcpu;
  __u8 at_return, entry_fetches, return_fetches, unused;
  __u64 task;
  __s32 pid, tgid;
  char comm[16];
  __u32 size;  // of all that follows
  __u32 padding;
};

// The guest, as the program needs to know it; constant while it is loaded.
struct ram_range {
  __u64 start, end;  // guest-physical
  __u64 delta;       // host address - guest-physical address
};
struct window {
  __u64 start, end, delta;  // as AddressSpace::Window
};
struct guest {
  __u32 tgid;  // of the QEMU process
  __u32 range_count;
  __u32 several_programs;  // may see the same exit
  __u32 unused;
  struct ram_range ranges[max_ranges];
  struct window direct_map, image;
  __u64 root;  // of the kernel's page table
  __u32 five_level;
  __u32 pid_offset, tgid_offset, comm_offset, mm_offset, pgd_offset;
  __u64 current[max_apic_id];  // host address of each CPU's current task, by APIC id; or 0
};

#ifdef __cplusplus
}  // namespace vmsight::kvm
#endif
#endif
