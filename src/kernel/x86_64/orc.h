// Kernel stacks of sleeping tasks, unwound by the ORC tables that the kernel carries for itself.
//
//   task->thread.sp -> inactive_task_frame {r15 r14 r13 r12 bx bp ret_addr}  by __switch_to_asm
//                      frames              each found by the ORC rule of the code before it:
//                                          CFA = sp or bp + offset; the return address is at
//                                          CFA - 8, the saved bp at CFA + bp_offset
//                      pt_regs             where an interrupt or a system call came in
//   task->stack + size
//
// Formats: arch/x86/include/asm/orc_types.h and unwind_orc.c of the Linux sources. The bits of
// an entry are taken from the guest's own BTF (struct orc_entry); no kernel version is tested.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernel/stack_unwinder.h"

namespace vmsight {

/// How to get from a place in code to its caller.
struct OrcRule {
  enum class Kind : std::uint8_t { undefined, end_of_stack, call, regs, partial_regs };
  enum class Base : std::uint8_t {
    undefined,
    previous_sp,
    ax,
    dx,
    di,
    bp,
    sp,
    r10,
    r13,
    bp_indirect,
    sp_indirect,
  };
  Kind kind = Kind::undefined;
  Base sp_base = Base::undefined, bp_base = Base::undefined;
  std::int16_t sp_offset = 0, bp_offset = 0;
  bool interrupted = false;  // the address found is an interrupted instruction, not a return
  friend bool operator==(const OrcRule&, const OrcRule&) = default;
};

/// Members that unwinding needs.
struct StackLayout {
  Member stack, saved_sp, on_cpu;  // task_struct
  Member frame_bp, frame_return;   // inactive_task_frame
  std::uint64_t frame_size = 0, regs_size = 0, stack_size = 0;
  Member ip, sp, bp, cs, orig_ax, ax, dx, di, r10, r13;  // pt_regs
  GuestVirt fork_start, fork_start_asm;                  // where a new task begins
};

/// The ORC tables of the kernel and of the modules loaded at creation. Rules are read on demand
/// and remembered (they never change while a kernel runs).
class OrcTables final : public StackUnwinder {
 public:
  /// unsupported, naming what is missing, if the kernel has no ORC tables.
  static Result<std::unique_ptr<OrcTables>> create(Kernel& kernel, Reader& reader);

  /// The rule for the code at this address; nullopt if it is in no known text, or unreadable.
  std::optional<OrcRule> find(Reader& reader, GuestVirt code);
  /// Text of the kernel or of a module.
  bool is_text(GuestVirt address) const { return table_for(address) != nullptr; }
  const StackLayout& layout() const { return layout_; }

  Result<KernelStack> unwind(Reader& reader, GuestVirt task) override;
  Result<KernelStack> unwind(Reader& reader, GuestVirt task, const StackStart& start) override;

 private:
  struct Table {
    GuestVirt text_start, text_end;  // half-open
    GuestVirt places;                // s32[count], sorted, each relative to itself
    GuestVirt entries;               // struct orc_entry[count]
    std::uint32_t count = 0;
  };
  struct EntryLayout {
    std::uint64_t size = 0;
    Member sp_offset, bp_offset, sp_reg, bp_reg, type;
    std::optional<Member> end, signal;  // until 6.3; since 6.3
  };
  OrcTables() = default;
  Result<void> resolve(Kernel& kernel);
  Result<void> add_kernel(Kernel& kernel);
  Result<void> learn_numbers(Kernel& kernel, Reader& reader);
  void add_modules(Kernel& kernel, Reader& reader);
  const Table* table_for(GuestVirt address) const;
  std::optional<std::uint32_t> search(Reader& reader, const Table& table, GuestVirt code) const;
  using EntryBytes = std::array<std::byte, 16>;
  std::optional<EntryBytes> read_entry(Reader& reader, GuestVirt code) const;
  OrcRule decode(const EntryBytes& entry) const;

  EntryLayout entry_;
  std::array<OrcRule::Base, 16> bases_{};  // by their numbers in this kernel's entries
  StackLayout layout_;
  std::vector<Table> tables_;
  std::unordered_map<std::uint64_t, OrcRule> known_;
};

}  // namespace vmsight
