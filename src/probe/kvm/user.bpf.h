// Traps in the guest's user programs: a hypercall that KVM does not permit to them. Included by probe.bpf.c.
//
//   fexit/kvm_emulate_hypercall    RIP is behind the trap, RAX is -EPERM
//
// A program has its code at other addresses in each process: what identifies a trap is the page that it
// is in. So the page tables of the process are walked, to the host's address of the trap.

MAP(BPF_MAP_TYPE_HASH, max_probes, __u64, struct trap, file_traps);

// The walk needs no task where CR3 is known. With page table isolation it is that of the user's half, which
// has the same user pages.
static __always_inline __u64 find_user_place(struct scratch* s, __u64 address) {
  if (s->event.known >> 16 & 1) {
    s->user_root = s->event.cr3 & PHYSICAL_MASK;
    return walk(s->user_root, address);
  }
  find(&s->who, who_ids);
  const __u64 root = user_root_of(s);
  return root ? walk(root, address) : 0;
}

// False where the hit is of a process that nobody asked about.
static __always_inline bool is_wanted(struct scratch* s, __u32 index) {
  const struct probe* probe = bpf_map_lookup_elem(&probes, &index);
  if (!probe || !probe->tgid) return true;
  return find(&s->who, who_ids) && s->who.tgid == probe->tgid;
}

static __always_inline void on_user_trap(struct kvm_vcpu* vcpu, __u32 slot) {
  const __u64 next = next_rip(vcpu);
  if (next >> 63) return;  // the guest's kernel asks for something: none of our business
  struct scratch* s = bpf_map_lookup_elem(&scratches, &slot);
  if (!s) return;
  begin_hit(s, vcpu);
  s->event.time = bpf_ktime_get_ns();
  read_registers(&s->event, vcpu, trap_in_place);
  // "Not permitted" is what KVM says to user code, whatever it asked for, and to nobody else.
  const bool refused = s->event.registers[kvm_rax] == -1ull;
  const __u64 place = refused ? find_user_place(s, next - user_trap_bytes) : 0;
  const struct trap* trap = place ? bpf_map_lookup_elem(&file_traps, &place) : 0;
  if (!trap) return count_stranger(next);
  s->event.registers[kvm_rax] = next - user_trap_bytes;
  s->event.known = (s->event.known & ~(1u << kvm_rax)) | rip_in_rax;
  for (int i = 0; i < max_probes_of_site; ++i) {
    if (i >= trap->count) break;
    const __u32 index = trap->probes[i];
    struct counters* counters = bpf_map_lookup_elem(&counts, &index);
    if (!counters) continue;
    if (trap->bare)
      count_up(&counters->hits);
    else if (is_wanted(s, index))
      pass(s, index, trap_in_place);
    else
      count_up(&counters->foreign);
  }
}

SEC("fexit/kvm_emulate_hypercall")
int BPF_PROG(on_hypercall, struct kvm_vcpu* vcpu) {
  if (is_ours() && is_first(vcpu)) on_user_trap(vcpu, 3);
  return 0;
}

// As on_missed_invd.
SEC("fexit/kvm_emulate_hypercall")
int BPF_PROG(on_missed_hypercall, struct kvm_vcpu* vcpu) {
  if (!is_ours() || !is_first(vcpu)) return 0;
  count_rescue(rescue_hypercall);
  on_user_trap(vcpu, 4);
  return 0;
}
