// The few structures of the host's kernel and its KVM that are looked into; where they are is found out when the
// program is loaded (CO-RE), so nothing here depends on the machine that builds it.
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kvm_vcpu_stat {
  __u64 exits;
};

struct kvm_vcpu_arch {
  unsigned long regs[17];  // as the instruction set counts them; [16] is RIP
  __u32 regs_avail;        // which of them are not stale
  unsigned long cr3;
};

struct kvm_vcpu {
  int vcpu_id;   // the APIC's
  int vcpu_idx;  // in order of creation: QEMU's number
  struct kvm_vcpu_arch arch;
  struct kvm_vcpu_stat stat;
};

// 7.2: RIP has a member of its own, and regs_avail is a bitmap.
struct kvm_vcpu_arch___new {
  unsigned long rip;
  unsigned long regs_avail[1];
};
struct kvm_vcpu___new {
  struct kvm_vcpu_arch___new arch;
};

struct task_struct {
  int tgid;
};

enum kvm_reg { VCPU_EXREG_CR3 = 0 };

#pragma clang attribute pop
