#include <gelf.h>
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "vm/image_formats.h"

namespace vmsight {
namespace {

constexpr std::size_t max_segments = 1u << 20;
constexpr std::uint64_t max_notes = 64u << 20;

Error elf_error(std::string_view what) {
  const char* reason = elf_errmsg(-1);
  return {.code = ErrorCode::bad_data,
          .message = fmt::format("read ELF core: {}: {}", what, reason ? reason : "malformed"),
          .hint = "the dump may be incomplete"};
}

Error bad_core(std::string message, std::string hint = "") {
  return {.code = ErrorCode::bad_data,
          .message = "read ELF core: " + std::move(message),
          .hint = std::move(hint)};
}

/// QEMU's CPU note (name "QEMU", type 0), all little-endian:
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

std::uint64_t u64_at(std::span<const std::byte> bytes, std::size_t offset) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

/// vmsight's own note (name "VMSIGHT", type 1): u64, the guest-physical address of the page table
/// of the kernel that it read, which it knew to run.
constexpr std::uint32_t note_of_kernel = 1;

void add_kernel(Image& image, std::span<const std::byte> note) {
  if (note.size() == 8) image.kernel_page_table = GuestPhys(u64_at(note, 0));
}

void add_cpu(Image& image, std::span<const std::byte> note) {
  if (note.size() < qemu_note::size) return;
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

bool is_cut(const ImageFile& file, const GElf_Phdr& header) {
  return header.p_offset > file.size || header.p_filesz > file.size - header.p_offset;
}

Result<void> read_notes(const ImageFile& file, const GElf_Phdr& header, Elf* elf, Image& image) {
  if (header.p_filesz > max_notes) return bad_core("notes are too long");
  if (is_cut(file, header)) {
    image.problems.emplace_back("notes (registers of the vCPUs) end beyond the file");
    return {};
  }
  // Owned by elf; header and content are bounds-checked by gelf_getnote.
  Elf_Data* data = elf_getdata_rawchunk(elf, static_cast<std::int64_t>(header.p_offset),
                                        header.p_filesz, ELF_T_NHDR);
  if (data == nullptr) return elf_error("notes");
  const auto bytes = std::span(static_cast<const std::byte*>(data->d_buf), data->d_size);
  GElf_Nhdr note;
  std::size_t name_at = 0, content_at = 0, next = 0;
  while ((next = gelf_getnote(data, next, &note, &name_at, &content_at)) > 0) {
    const auto named =
        std::string_view(reinterpret_cast<const char*>(&bytes[name_at]), note.n_namesz);
    const std::string_view name = named.substr(0, named.find('\0'));
    const auto content = bytes.subspan(content_at, note.n_descsz);
    if (name == "QEMU") add_cpu(image, content);
    if (name == "VMSIGHT" && note.n_type == note_of_kernel) add_kernel(image, content);
    if (name == "VMCOREINFO" && image.vmcoreinfo.empty()) {
      image.vmcoreinfo.assign(reinterpret_cast<const char*>(content.data()), content.size());
    }
  }
  return {};
}

/// Cuts to whole pages. What the file does not hold remains in the segment: it is missing, not zero.
Result<void> add_segment(const GElf_Phdr& header, Image& image) {
  constexpr std::uint64_t none = ~std::uint64_t{0};
  if (header.p_paddr == none || header.p_offset == none) return {};  // virtual only; not RAM
  const std::uint64_t skip = (page_size - header.p_paddr % page_size) % page_size;
  if (header.p_memsz < skip + page_size) return {};
  ImageSegment segment;
  segment.start = GuestPhys(header.p_paddr) + skip;
  segment.size = (header.p_memsz - skip) & ~(page_size - 1);
  constexpr std::uint64_t max_offset = INT64_MAX;  // of any file
  if (header.p_offset > max_offset) return bad_core("a segment lies outside any file");
  segment.file_offset = header.p_offset + skip;
  segment.file_size = std::min(segment.size, header.p_filesz - std::min(skip, header.p_filesz));
  if (!segment.start.checked_add(segment.size)) return bad_core("a segment wraps");
  if (segment.file_size == 0) segment.file_offset = 0;
  if (segment.file_offset > max_offset || segment.file_size > max_offset - segment.file_offset)
    return bad_core("a segment wraps in the file");
  image.segments.push_back(segment);
  return {};
}

/// Page tables map memory more than once, and so do dumps made along them (paging=true, kdump's
/// kernel text): the first segment of each address is kept.
std::vector<ImageSegment> without_overlaps(std::vector<ImageSegment> segments) {
  std::stable_sort(segments.begin(), segments.end(),
                   [](const auto& a, const auto& b) { return a.start < b.start; });
  std::vector<ImageSegment> kept;
  for (ImageSegment segment : segments) {
    if (!kept.empty()) {
      const GuestPhys end = kept.back().start + kept.back().size;
      const std::uint64_t overlap = end > segment.start ? end - segment.start : 0;
      if (overlap >= segment.size) continue;
      segment.start = segment.start + overlap;
      segment.size -= overlap;
      segment.file_offset += std::min(overlap, segment.file_size);
      segment.file_size -= std::min(overlap, segment.file_size);
    }
    kept.push_back(segment);
  }
  return kept;
}

Result<void> check_header(Elf* elf) {
  GElf_Ehdr header;
  if (elf_kind(elf) != ELF_K_ELF || gelf_getehdr(elf, &header) == nullptr) {
    return elf_error("header");
  }
  if (header.e_type != ET_CORE) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "read ELF core: the file is an ELF program, not a core"};
  }
  const bool x86 = header.e_machine == EM_X86_64 || header.e_machine == EM_386;
  if (!x86 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return Error{.code = ErrorCode::unsupported, .message = "read ELF core: not of an x86 machine"};
  }
  return {};
}

Result<void> read_segments(const ImageFile& file, Elf* elf, Image& image) {
  std::size_t count = 0;
  if (elf_getphdrnum(elf, &count) != 0 || count > max_segments) return elf_error("segments");
  bool lost = false;
  for (std::size_t i = 0; i < count; ++i) {
    GElf_Phdr header;
    if (gelf_getphdr(elf, static_cast<int>(i), &header) == nullptr) return elf_error("segments");
    const bool empty = header.p_type == PT_LOAD && header.p_memsz == 0;
    if (header.p_type == PT_NULL || empty) lost = true;  // nobody writes these
    if (header.p_type == PT_NOTE) VMSIGHT_TRY_VOID(read_notes(file, header, elf, image));
    if (header.p_type == PT_LOAD) VMSIGHT_TRY_VOID(add_segment(header, image));
  }
  if (lost) image.problems.emplace_back("program headers are empty: memory may be missing");
  return {};
}

/// How much of a segment's bytes the file holds.
std::uint64_t held_bytes(const ImageFile& file, const ImageSegment& segment) {
  if (segment.file_offset >= file.size) return 0;
  return std::min(segment.file_size, file.size - segment.file_offset);
}

/// An error if nothing is left.
Result<void> look_for_missing(const ImageFile& file, Image& image) {
  std::uint64_t held = 0, missing = 0;
  std::optional<GuestPhys> first;
  for (const ImageSegment& segment : image.segments) {
    const std::uint64_t here = held_bytes(file, segment);
    held += here;
    missing += segment.file_size - here;
    if (here < segment.file_size && !first) first = (segment.start + here).page();
  }
  if (!first) return {};
  if (held < page_size)
    return bad_core("all of its memory is beyond the end of the file", "the dump is incomplete");
  image.problems.push_back(fmt::format(
      "the file ends too early: {} bytes of memory are missing, the first at {}", missing, *first));
  return {};
}

}  // namespace

Result<Image> read_elf_core(const ImageFile& file) {
  elf_version(EV_CURRENT);
  const std::unique_ptr<Elf, int (*)(Elf*)> elf(elf_begin(file.fd.get(), ELF_C_READ, nullptr),
                                                &elf_end);
  if (!elf) return elf_error("open");
  VMSIGHT_TRY_VOID(check_header(elf.get()));
  Image image;
  image.format = "elf";
  VMSIGHT_TRY_VOID(read_segments(file, elf.get(), image));
  const auto& all = image.segments;
  if (all.empty()) return bad_core("no memory in it");
  const bool no_physical = all.size() > 1 && std::all_of(all.begin(), all.end(), [](const auto& s) {
                             return s.start == GuestPhys(0);
                           });
  if (no_physical) {
    return bad_core("it has no physical addresses: the core of a process, not of a machine",
                    "use dump-guest-memory of the QEMU monitor");
  }
  image.segments = without_overlaps(std::move(image.segments));
  VMSIGHT_TRY_VOID(look_for_missing(file, image));
  return image;
}

}  // namespace vmsight
