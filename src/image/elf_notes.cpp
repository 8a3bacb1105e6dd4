// Notes of ELF cores, which kdump files have too. Every length in them is checked.
#include <elf.h>

#include "image/image_format.h"

namespace vmsight {
namespace {

/// QEMU's CPU note (name "QEMU", type 0; target/i386/arch_dump.c), all little-endian:
///   u32 version, size; u64 rax rbx rcx rdx rsi rdi rsp rbp r8..r15 rip rflags;
///   {u32 selector, limit, flags, pad; u64 base} cs ds es fs gs ss ldt tr gdt idt; u64 cr[5]; ...
namespace qemu_note {
constexpr std::size_t general = 8;
constexpr std::size_t rip = general + 16 * 8;
constexpr std::size_t rflags = rip + 8;
constexpr std::size_t segments = rip + 2 * 8;
constexpr std::size_t segment_size = 24, segment_base = 16;
constexpr std::size_t cs = segments, gs = segments + 4 * segment_size;
constexpr std::size_t cr = segments + 10 * segment_size;
constexpr std::size_t size = cr + 5 * 8;
}  // namespace qemu_note

/// VirtualBox's (name "VBCPU", type 0xb01; DBGFCORECPU of include/VBox/dbgfcorefmt.h):
///   u64 rax rbx rcx rdx rsi rdi r8..r15 rip rsp rbp rflags;
///   {u64 base; u32 limit, attributes; u16 selector, pad; u32 pad} cs ds es fs gs ss; u64 cr0 cr2 cr3 cr4
namespace virtualbox_note {
constexpr std::uint32_t type = 0xb01;
constexpr std::size_t rip = 14 * 8, rsp = rip + 8, rbp = rsp + 8, rflags = rbp + 8;
constexpr std::size_t segments = 18 * 8, segment_size = 24, selector = 16;
constexpr std::size_t gs = segments + 4 * segment_size;
constexpr std::size_t cr0 = segments + 6 * segment_size;
constexpr std::size_t size = cr0 + 4 * 8;
}  // namespace virtualbox_note

/// vmsight's own note (name "VMSIGHT", type 1): u64, the guest-physical address of the page table
/// of the kernel that it read, which it knew to run.
constexpr std::uint32_t note_of_kernel = 1;

constexpr std::size_t max_vcpus = 8192;

std::uint64_t u64_at(std::span<const std::byte> bytes, std::size_t offset) {
  return number_in<std::uint64_t>(bytes, offset);
}

void add_qemu_cpu(Image& image, std::span<const std::byte> note) {
  if (note.size() < qemu_note::size || image.registers.size() >= max_vcpus) return;
  VcpuRegisters registers;
  registers.index = static_cast<unsigned>(image.registers.size());
  registers.rip = u64_at(note, qemu_note::rip);
  registers.gs_base = u64_at(note, qemu_note::gs + qemu_note::segment_base);
  registers.cpl = static_cast<unsigned>(u64_at(note, qemu_note::cs) & 3);
  registers.cr3 = u64_at(note, qemu_note::cr + 3 * 8);
  registers.cr4 = u64_at(note, qemu_note::cr + 4 * 8);
  for (std::size_t i = 0; i < registers.general.size(); ++i) {
    registers.general[i] = u64_at(note, qemu_note::general + i * 8);
  }
  registers.rflags = u64_at(note, qemu_note::rflags);
  registers.has_general = registers.rflags != 0;  // bit 1 is always set
  image.registers.push_back(registers);
}

void add_virtualbox_cpu(Image& image, std::span<const std::byte> note) {
  using namespace virtualbox_note;
  if (note.size() < size || image.registers.size() >= max_vcpus) return;
  VcpuRegisters registers;
  registers.index = static_cast<unsigned>(image.registers.size());
  registers.rip = u64_at(note, rip);
  registers.gs_base = u64_at(note, gs);
  registers.cpl = static_cast<unsigned>(u64_at(note, segments + selector) & 3);
  registers.cr3 = u64_at(note, cr0 + 2 * 8);
  registers.cr4 = u64_at(note, cr0 + 3 * 8);
  for (std::size_t i = 0; i < 6; ++i) registers.general[i] = u64_at(note, i * 8);
  registers.general[6] = u64_at(note, rsp);
  registers.general[7] = u64_at(note, rbp);
  for (std::size_t i = 8; i < 16; ++i) registers.general[i] = u64_at(note, (i - 2) * 8);
  registers.rflags = u64_at(note, rflags);
  registers.has_general = registers.rflags != 0;
  image.registers.push_back(registers);
}

void read_note(std::string_view name, std::uint32_t type, std::span<const std::byte> content,
               Image& image) {
  if (name == "QEMU") add_qemu_cpu(image, content);
  if (name == "VBCPU" && type == virtualbox_note::type) add_virtualbox_cpu(image, content);
  if (name == "VMSIGHT" && type == note_of_kernel && content.size() == sizeof(std::uint64_t)) {
    image.kernel_page_table = GuestPhys(u64_at(content, 0));
  }
  if (name == "VMCOREINFO" && image.vmcoreinfo.empty()) {
    image.vmcoreinfo.assign(reinterpret_cast<const char*>(content.data()), content.size());
  }
}

}  // namespace

NoteWriter read_notes(std::span<const std::byte> notes, Image& image) {
  NoteWriter writer = NoteWriter::other;
  const auto padded = [](std::uint64_t size) { return (size + 3) & ~std::uint64_t{3}; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    const auto header = number_in<Elf64_Nhdr>(notes, 0);
    const std::uint64_t name_at = sizeof header, content_at = name_at + padded(header.n_namesz);
    if (content_at > notes.size() || header.n_descsz > notes.size() - content_at) break;
    const std::string_view name(reinterpret_cast<const char*>(notes.data() + name_at),
                                header.n_namesz);
    const std::string_view owner = name.substr(0, name.find('\0'));
    if (owner == "VBCORE") writer = NoteWriter::virtualbox;
    read_note(owner, header.n_type, notes.subspan(content_at, header.n_descsz), image);
    const std::uint64_t end = content_at + padded(header.n_descsz);
    notes = notes.subspan(std::min<std::uint64_t>(end, notes.size()));
  }
  return writer;
}

}  // namespace vmsight
