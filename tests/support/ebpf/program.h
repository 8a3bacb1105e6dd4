// The eBPF program of engine kvm, compiled for this machine, with maps and helpers that are ours: what it makes of a
// guest's memory can be tested without a host that has KVM. Structures are those of probe/kvm/shared.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Forgets all maps and events. `guest` is a struct guest.
void native_program_begin(const void* guest);
/// A struct probe in its place, and a struct trap behind which RIP is `next_rip`.
void native_program_set_probe(uint32_t index, const void* probe);
void native_program_set_trap(uint64_t next_rip, const void* trap);
/// A vCPU whose APIC has this number comes to a trap. Registers in KVM's order.
void native_program_hit(uint64_t next_rip, const uint64_t* registers, uint64_t cr3, int apic_id);
/// A struct counters.
const void* native_program_counters(uint32_t index);
/// The last event, nullptr if there was none since this was asked; valid until the next hit.
const void* native_program_event(size_t* size);
/// False: nobody can keep calls any more.
void native_program_set_room(int has_room);

#ifdef __cplusplus
}
#endif
