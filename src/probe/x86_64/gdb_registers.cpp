#include "probe/x86_64/gdb_registers.h"

#include <fmt/format.h>
#include <cstring>

#include "qemu/gdb_text.h"

namespace vmsight {
namespace {

// gdb-xml/i386-64bit.xml of QEMU: rax rbx rcx rdx rsi rdi rbp rsp r8-r15 rip (8 bytes each), eflags
// cs ss ds es fs gs (4 each), fs_base gs_base k_gs_base cr0 cr2 cr3 cr4 cr8 efer (8 each), x87 ...
constexpr std::size_t rip_at = 16 * 8, eflags_at = rip_at + 8, cs_at = eflags_at + 4;
constexpr std::size_t gs_base_at = cs_at + 6 * 4 + 8, kernel_gs_base_at = gs_base_at + 8;
constexpr std::size_t cr3_at = kernel_gs_base_at + 3 * 8;
constexpr std::size_t needed = cr3_at + 8;
constexpr unsigned rax_number = 0, rsp_number = 7, rip_number = 16;
/// GDB has rbp before rsp.
constexpr unsigned our_index(unsigned theirs) {
  return theirs == 6 ? reg::rbp : theirs == 7 ? reg::rsp : theirs;
}

std::string set_register(unsigned number, std::uint64_t value) {
  std::string text = fmt::format("P{:x}=", number);
  for (unsigned i = 0; i < 8; ++i) text += fmt::format("{:02x}", value >> (8 * i) & 0xff);
  return text;
}

}  // namespace

Result<GdbRegisters> parse_gdb_registers(std::string_view answer) {
  if (answer.size() < 2 * needed) {
    return Error{.code = ErrorCode::bad_data, .message = "read gdbstub: too few registers"};
  }
  std::array<std::byte, needed> bytes;
  VMSIGHT_TRY_VOID(parse_memory(answer.substr(0, 2 * needed), bytes));
  const auto load = [&](std::size_t at, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, size);
    return value;
  };
  GdbRegisters all;
  for (unsigned i = 0; i < 16; ++i) all.registers.general[our_index(i)] = load(i * 8, 8);
  all.registers.rip = load(rip_at, 8);
  all.registers.rflags = load(eflags_at, 4);
  all.registers.gs_base = load(gs_base_at, 8);
  all.registers.cr3 = load(cr3_at, 8);
  all.registers.known =
      reg::all_general | 1u << reg::rip | 1u << reg::rflags | 1u << reg::cr3 | 1u << reg::gs_base;
  all.kernel_gs_base = load(kernel_gs_base_at, 8);
  all.cpl = static_cast<unsigned>(load(cs_at, 4)) & 3;
  return all;
}

std::string set_rip(std::uint64_t value) { return set_register(rip_number, value); }

std::vector<std::string> return_at_once(std::uint64_t result, std::uint64_t stack,
                                        std::uint64_t back) {
  return {set_register(rax_number, result), set_register(rsp_number, stack + sizeof(back)),
          set_rip(back)};
}

}  // namespace vmsight
