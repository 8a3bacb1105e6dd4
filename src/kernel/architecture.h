// All of a guest that depends on its processor, behind one table of facts and functions.
//
//   AddressSpace, KernelImage, stacks, probes ----> Architecture ----> kernel/x86_64/
//
// Nothing outside of an architecture's own folders says how its page tables, registers, calls or
// instructions look. There is one so far; CONTRIBUTING.md says what the next one needs besides.
// Engines know instructions that trap, and have those in folders of their own (probe/kvm).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kernel/stack_unwinder.h"
#include "vmsight/kernel.h"

namespace vmsight {

/// One entry of a page table of a process, without its bits.
struct PageEntry {
  enum class Kind : std::uint8_t { none, table, page };
  Kind kind = Kind::none;
  bool dirty = false;    // written through this entry
  bool special = false;  // of a page that is no page of the kernel's: the zero page, vvar
  GuestPhys address;     // of the table below, or of the page
};

/// Pages of the kernel that lie side by side and may be executed.
struct ExecutableRun {
  GuestVirt start;
  std::uint64_t size = 0;  // bytes
  GuestVirt end() const { return start + size; }
};

/// Wrappers of system calls: a function `prefix` + name gets a pointer to the caller's registers.
struct SystemCallWrappers {
  using Names = std::span<const std::pair<std::string_view, std::string_view>>;
  std::string_view prefix;                 // "__x64_sys_"
  std::string_view abi;                    // "" of the processor's native programs; "i386"
  std::span<const char* const> arguments;  // members of struct pt_regs, in order
  Names other_names;  // the kernel's name of a call, and that of programs and manuals
};

/// What the first instructions of a kernel function are.
struct FunctionEntry {
  enum class Kind : std::uint8_t {
    nop,   // the NOP that the kernel keeps for its own tracers
    call,  // that the kernel itself has put there in its place
    other,
  };
  Kind kind = Kind::other;
  std::size_t offset = 0;  // of that place from the function's start
};

struct Architecture {
  std::string_view name;  // "x86-64"

  // ---- page tables -------------------------------------------------------------------------

  /// See AddressSpace::walk(). `tables`, if it is not nullptr, gets each table before it is read.
  std::optional<AddressSpace::Walk> (*walk)(GuestMemory& memory, const AddressSpace& space,
                                            GuestVirt va, std::vector<GuestPhys>* tables);
  /// The table that this value of a vCPU's register names.
  GuestPhys (*root_of)(std::uint64_t table_register);
  bool (*is_user)(std::uint64_t va);
  /// How many bits of an address a table of any level translates, and how many are left to the
  /// levels below a table of this level; level 0 maps pages.
  unsigned index_bits;
  unsigned (*level_shift)(unsigned level);
  /// Entries first .. last of a table of a process, as its kernel understands them.
  void (*read_user_entries)(const std::byte* table, unsigned level, std::size_t first,
                            std::size_t last, std::span<PageEntry> into);
  /// Appends what may be executed of the kernel's half from `first` on, up to and without `last`,
  /// ascending, by the tables alone. `tables` is how many tables may be read, and gets what is left of
  /// that; false if it was not enough, or a forged table gives more runs than any kernel has.
  bool (*find_executable)(GuestMemory& memory, const AddressSpace& space, GuestVirt first,
                          GuestVirt last, std::size_t& tables, std::vector<ExecutableRun>& into);

  // ---- the kernel's image ------------------------------------------------------------------

  GuestVirt image_base;                // the lowest address that an image is linked for
  std::string_view kernel_page_table;  // its symbol
  std::string_view crash_flag;         // an int that a crashed kernel sets when it stops its CPUs
  std::uint64_t image_alignment;       // of images, physically; a multiple of the scan's step
  GuestVirt (*default_direct_map)(unsigned levels);  // of kernels that do not say where it is
  GuestVirt (*default_vmemmap)(unsigned levels);
  /// Where the kernel's own page table maps the image at `text`; nullopt if it does not.
  struct ImagePlace {
    GuestVirt text;
    unsigned levels = 0;
  };
  std::optional<ImagePlace> (*find_image)(GuestMemory& memory, GuestPhys table, GuestPhys text);
  /// Where pieces of `image_alignment` begin that vCPUs with these table registers map as an image.
  std::vector<GuestPhys> (*mapped_images)(GuestMemory& memory,
                                          std::span<const std::uint64_t> registers);
  /// Whether one of these vCPUs maps [text, text + size) there.
  bool (*maps_image)(GuestMemory& memory, std::span<const std::uint64_t> registers, GuestPhys text,
                     std::uint64_t size, GuestVirt at);

  // ---- stacks ------------------------------------------------------------------------------

  /// unsupported, naming what is missing, if the kernel says too little of its stacks.
  Result<std::unique_ptr<StackUnwinder>> (*make_unwinder)(Kernel& kernel, Reader& reader);

  // ---- registers and calls -----------------------------------------------------------------

  // Numbers of registers are those of ProbeRegisters::general.
  std::span<const std::uint8_t>
      argument_registers;             // of a function's integers and pointers, in order
  std::int32_t first_stack_argument;  // from the stack pointer at a function's start
  std::uint8_t result_register, stack_register;
  std::span<const SystemCallWrappers> system_calls;  // those of native programs first
  std::string_view system_call_number;               // member of struct pt_regs

  // ---- code --------------------------------------------------------------------------------

  static constexpr std::size_t entry_code_size = 9;  // bytes that judge_entry() looks at
  FunctionEntry (*judge_entry)(std::span<const std::byte, entry_code_size> code);
  /// Bytes of an instruction that does nothing; 0 if it may do something. `landing_pads` says
  /// whether those do nothing: not where the CPU tracks indirect branches.
  std::size_t (*nop_length)(std::span<const std::byte> code, bool landing_pads);
};

/// All that there are.
std::span<const Architecture* const> architectures();

}  // namespace vmsight
