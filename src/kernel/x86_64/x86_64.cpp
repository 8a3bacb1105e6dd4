#include <array>
#include <cstring>

#include "kernel/scan.h"
#include "kernel/x86_64/image_directory.h"
#include "kernel/x86_64/orc.h"
#include "kernel/x86_64/page_table.h"
#include "kernel/x86_64/x86_64.h"

namespace vmsight {
namespace x86 {
namespace {

GuestPhys root_of(std::uint64_t cr3) { return GuestPhys(cr3 & entry_address); }

/// User addresses are those of the lower half.
bool is_user(std::uint64_t va) { return va >> 63 == 0; }

// Documentation/arch/x86/x86_64/mm.rst, without CONFIG_RANDOMIZE_MEMORY.
GuestVirt default_direct_map(unsigned levels) {
  return GuestVirt(levels == 5 ? 0xff11000000000000 : 0xffff888000000000);
}
GuestVirt default_vmemmap(unsigned levels) {
  return GuestVirt(levels == 5 ? 0xffd4000000000000 : 0xffffea0000000000);
}

Result<std::unique_ptr<StackUnwinder>> make_unwinder(Kernel& kernel, Reader& reader) {
  VMSIGHT_TRY(auto tables, OrcTables::create(kernel, reader));
  return std::unique_ptr<StackUnwinder>(std::move(tables));
}

// ---- calls: System V ABI for AMD64, 3.2.3 --------------------------------------------------

// Numbers of ProbeRegisters: rax rbx rcx rdx rsi rdi rsp rbp r8 r9 ...
constexpr std::uint8_t rax = 0, rcx = 2, rdx = 3, rsi = 4, rdi = 5, rsp = 6, r8 = 8, r9 = 9;
constexpr std::array<std::uint8_t, 6> argument_registers{rdi, rsi, rdx, rcx, r8, r9};

constexpr std::array<const char*, 6> call_registers{"di", "si", "dx", "r10", "r8", "r9"};
constexpr std::array<const char*, 6> call_registers_32{"bx", "cx", "dx", "si", "di", "bp"};

using Name = std::pair<std::string_view, std::string_view>;

/// arch/x86/entry/syscalls/syscall_64.tbl.
constexpr Name other_names[] = {
    {"newfstat", "fstat"}, {"newlstat", "lstat"},      {"newstat", "stat"},
    {"newuname", "uname"}, {"sendfile64", "sendfile"}, {"umount", "umount2"},
};

/// arch/x86/entry/syscalls/syscall_32.tbl.
constexpr Name other_i386_names[] = {
    {"newfstat", "fstat"}, {"newlstat", "lstat"},    {"newstat", "stat"},     {"newuname", "uname"},
    {"umount", "umount2"}, {"oldumount", "umount"},  {"mmap_pgoff", "mmap2"}, {"ia32_mmap", "mmap"},
    {"llseek", "_llseek"}, {"select", "_newselect"},
};

// arch/x86/include/asm/syscall_wrapper.h. Programs of x32 call those of 64-bit programs where both mean the same;
// until Linux 5.7 the others were called __x32_compat_sys_*.
constexpr std::array<SystemCallWrappers, 5> wrappers{{
    {"__x64_sys_", "", call_registers, other_names},
    {"__ia32_sys_", "i386", call_registers_32, other_i386_names},
    {"__ia32_compat_sys_", "i386", call_registers_32, other_i386_names},
    {"__x64_compat_sys_", "x32", call_registers, other_names},
    {"__x32_compat_sys_", "x32", call_registers, other_names},
}};

// ---- code ----------------------------------------------------------------------------------

using Code = std::span<const std::byte, Architecture::entry_code_size>;

template <std::size_t N>
bool begins(std::span<const std::byte> code, const unsigned char (&bytes)[N]) {
  return code.size() >= N && std::memcmp(code.data(), bytes, N) == 0;
}

/// endbr64, or what a kernel that seals functions nobody calls indirectly makes of it.
bool is_prefix(std::span<const std::byte> code) {
  return begins(code, {0xf3, 0x0f, 0x1e, 0xfa}) ||
         begins(code, {0x66, 0x0f, 0x1f, 0x00}) ||  // 6.12
         begins(code, {0x0f, 0x1f, 0x40, 0xd6});    // 7.2
}

FunctionEntry judge_entry(Code code) {
  FunctionEntry entry{.offset = is_prefix(code) ? 4U : 0U};
  const auto at = std::span<const std::byte>(code).subspan(entry.offset);
  if (begins(at, {0x0f, 0x1f, 0x44, 0x00, 0x00}) ||
      begins(at, {0x66, 0x66, 0x66, 0x66, 0x90})) {  // 5.10
    entry.kind = FunctionEntry::Kind::nop;
  } else if (begins(at, {0xe8}) || begins(at, {0xe9})) {
    entry.kind = FunctionEntry::Kind::call;
  }
  return entry;
}

std::size_t nop_length(std::span<const std::byte> code, bool landing_pads) {
  struct Nop {
    std::size_t size;
    unsigned char bytes[9];
    unsigned char compared;  // bytes; the rest are operands that do not matter
  };
  // Intel SDM volume 2B, "NOP"; the second of five bytes is what Linux 5.10 used.
  static constexpr Nop nops[] = {
      {1, {0x90}, 1},
      {2, {0x66, 0x90}, 2},
      {3, {0x0f, 0x1f, 0x00}, 3},
      {4, {0x0f, 0x1f, 0x40}, 3},
      {4, {0x66, 0x0f, 0x1f, 0x00}, 4},
      {5, {0x0f, 0x1f, 0x44, 0x00}, 4},
      {5, {0x66, 0x66, 0x66, 0x66, 0x90}, 5},
      {6, {0x66, 0x0f, 0x1f, 0x44, 0x00}, 5},
      {7, {0x0f, 0x1f, 0x80}, 3},
  };
  static constexpr unsigned char endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  if (landing_pads && code.size() >= 4 && std::memcmp(code.data(), endbr64, 4) == 0) return 4;
  for (const Nop& nop : nops) {
    if (code.size() >= nop.size && std::memcmp(code.data(), nop.bytes, nop.compared) == 0) {
      return nop.size;
    }
  }
  return 0;
}

}  // namespace
}  // namespace x86

static_assert(x86::ImageDirectory::slot_size % image_alignment == 0, "the scan meets each image");

constinit const Architecture x86_64{
    .name = "x86-64",
    .walk = x86::walk,
    .root_of = x86::root_of,
    .is_user = x86::is_user,
    .index_bits = x86::bits_per_level,
    .level_shift = x86::level_shift,
    .read_user_entries = x86::read_user_entries,
    .find_executable = x86::find_executable,
    .image_base = x86::ImageDirectory::start,
    .kernel_page_table = "init_top_pgt",
    .crash_flag =
        "crash_ipi_issued",  // nmi_shootdown_cpus() of arch/x86/kernel/reboot.c, since 4.5
    .image_alignment = x86::ImageDirectory::slot_size,
    .default_direct_map = x86::default_direct_map,
    .default_vmemmap = x86::default_vmemmap,
    .find_image = x86::find_image,
    .mapped_images = x86::mapped_images,
    .maps_image = x86::maps_image,
    .make_unwinder = x86::make_unwinder,
    .argument_registers = x86::argument_registers,
    .first_stack_argument = 8,  // behind the return address
    .result_register = x86::rax,
    .stack_register = x86::rsp,
    .system_calls = x86::wrappers,
    .system_call_number = "orig_ax",
    .judge_entry = x86::judge_entry,
    .nop_length = x86::nop_length,
};

}  // namespace vmsight
