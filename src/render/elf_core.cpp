#include "render/elf_core.h"

#include <elf.h>
#include <sys/procfs.h>
#include <algorithm>
#include <array>
#include <cstring>

namespace vmsight {
namespace {

// Selectors of 64-bit Linux: asm/segment.h.
constexpr unsigned kernel_code = 0x10, kernel_data = 0x18, user_data = 0x2b, user_code = 0x33;

template <typename T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void pad(std::string& bytes, std::size_t alignment) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
}

void append_note(std::string& notes, const char* name, std::uint32_t type,
                 std::string_view content) {
  const Elf64_Nhdr header{static_cast<Elf64_Word>(std::strlen(name) + 1),
                          static_cast<Elf64_Word>(content.size()), type};
  append(notes, header);
  notes.append(name, header.n_namesz);
  pad(notes, 4);
  notes += content;
  pad(notes, 4);
}

template <typename T>
void append_note(std::string& notes, const char* name, std::uint32_t type, const T& content) {
  append_note(notes, name, type, {reinterpret_cast<const char*>(&content), sizeof content});
}

/// QEMU's note "QEMU" of type 0, version 1: the system registers that NT_PRSTATUS lacks.
struct QemuSegment {
  std::uint32_t selector, limit, flags, pad;
  std::uint64_t base;
};
struct QemuCpu {
  std::uint32_t version, size;
  std::uint64_t general[16], rip, rflags;
  QemuSegment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
  std::uint64_t cr[5];
};

/// What gdb takes for a thread: elf_prstatus with the registers in the order of user_regs_struct.
void append_thread(std::string& notes, const VcpuRegisters& vcpu) {
  // Positions in VcpuRegisters::general: 0 rax, 1 rbx, 2 rcx, 3 rdx, 4 rsi, 5 rdi, 6 rsp, 7 rbp.
  constexpr std::array<unsigned, 15> order = {15, 14, 13, 12, 7, 1, 11, 10, 9, 8, 0, 2, 3, 4, 5};
  constexpr unsigned orig_rax = 15, rip = 16, cs = 17, rflags = 18, rsp = 19, ss = 20, gs_base = 22;
  elf_prstatus status{};
  status.pr_pid = static_cast<pid_t>(vcpu.index + 1);
  for (unsigned i = 0; i < order.size(); ++i) status.pr_reg[i] = vcpu.general[order[i]];
  status.pr_reg[orig_rax] = ~0ULL;  // in no system call
  status.pr_reg[rip] = vcpu.rip;
  status.pr_reg[cs] = vcpu.cpl == 0 ? kernel_code : user_code;
  status.pr_reg[rflags] = vcpu.rflags;
  status.pr_reg[rsp] = vcpu.general[6];
  status.pr_reg[ss] = vcpu.cpl == 0 ? kernel_data : user_data;
  status.pr_reg[gs_base] = vcpu.gs_base;
  append_note(notes, "CORE", NT_PRSTATUS, status);
}

void append_registers(std::string& notes, const VcpuRegisters& vcpu) {
  if (vcpu.has_general) append_thread(notes, vcpu);
  QemuCpu cpu{};
  std::copy(vcpu.general.begin(), vcpu.general.end(), cpu.general);
  cpu.rflags = vcpu.rflags;
  cpu.version = 1;
  cpu.size = sizeof cpu;
  cpu.rip = vcpu.rip;
  cpu.cs.selector = vcpu.cpl == 0 ? kernel_code : user_code;
  cpu.gs.base = vcpu.gs_base;
  cpu.cr[3] = vcpu.cr3;
  cpu.cr[4] = vcpu.cr4;
  append_note(notes, "QEMU", 0, cpu);
}

std::string make_notes(const CoreDetails& details) {
  std::string notes;
  for (const VcpuRegisters& vcpu : details.registers) append_registers(notes, vcpu);
  if (!details.vmcoreinfo.empty()) {
    append_note(notes, "VMCOREINFO", 0, std::string_view(details.vmcoreinfo));
  }
  if (details.page_table) append_note(notes, "VMSIGHT", 1, details.page_table->raw());
  return notes;
}

Elf64_Ehdr elf_header(std::size_t segments) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(segments);
  return header;
}

Elf64_Phdr load_segment(GuestPhys start, std::uint64_t size, std::uint64_t address,
                        std::uint64_t file_offset) {
  Elf64_Phdr header{};
  header.p_type = PT_LOAD;
  header.p_flags = PF_R | PF_W | PF_X;
  header.p_offset = file_offset;
  header.p_vaddr = address;
  header.p_paddr = start.raw();
  header.p_filesz = header.p_memsz = size;
  return header;
}

bool inside_one_range(const RamMap& ram, const VirtualAlias& alias) {
  const RamRange* range = ram.find(alias.start);
  return range != nullptr && alias.size <= range->end() - alias.start;
}

}  // namespace

std::uint64_t CoreHeader::offset_of(const RamMap& ram, GuestPhys address) const {
  std::uint64_t offset = ram_offset;
  for (const RamRange& range : ram.ranges()) {
    if (address >= range.start && address < range.end()) return offset + (address - range.start);
    offset += range.size;
  }
  VMSIGHT_CHECK(!"an address that is not RAM");
  return 0;
}

CoreHeader make_core_header(const RamMap& ram, const CoreDetails& details) {
  std::vector<VirtualAlias> aliases = details.aliases;
  std::erase_if(aliases, [&](const VirtualAlias& alias) { return !inside_one_range(ram, alias); });
  const std::string notes = make_notes(details);
  const std::size_t segments = 1 + aliases.size() + ram.ranges().size();
  const std::size_t notes_offset = sizeof(Elf64_Ehdr) + segments * sizeof(Elf64_Phdr);

  CoreHeader header;
  header.ram_offset = (notes_offset + notes.size() + page_size - 1) & ~(page_size - 1);
  header.file_size = header.ram_offset + ram.total_bytes();
  append(header.bytes, elf_header(segments));
  Elf64_Phdr note{};
  note.p_type = PT_NOTE;
  note.p_offset = notes_offset;
  note.p_filesz = note.p_memsz = notes.size();
  append(header.bytes, note);
  for (const VirtualAlias& alias : aliases) {
    append(header.bytes, load_segment(alias.start, alias.size, alias.address.raw(),
                                      header.offset_of(ram, alias.start)));
  }
  for (const RamRange& range : ram.ranges()) {
    const std::uint64_t address =
        details.direct_map ? (*details.direct_map + range.start.raw()).raw() : range.start.raw();
    append(header.bytes,
           load_segment(range.start, range.size, address, header.offset_of(ram, range.start)));
  }
  header.bytes += notes;
  return header;
}

}  // namespace vmsight
