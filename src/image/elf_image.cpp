// An ELF core whose PT_LOAD segments carry guest-physical addresses (p_paddr): QEMU's
// dump-guest-memory, makedumpfile -E, VirtualBox's dumpvmcore, kdump's /proc/vmcore, vmsight
// snapshot. What a segment's bytes in the file do not cover was left out.
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "image/image_format.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_segments = 1U << 20;
constexpr std::uint64_t max_notes = 64U << 20;

Error bad_core(std::string message, std::string hint = "") {
  return {.code = ErrorCode::bad_data,
          .message = "read ELF core: " + std::move(message),
          .hint = std::move(hint)};
}

/// What both classes of ELF have, in the wider numbers.
struct Header {
  std::uint16_t type = 0, machine = 0;
  std::uint64_t table = 0, count = 0, entry_size = 0, sections = 0;
  bool wide = true;
};

template <typename Ehdr>
Result<Header> header_of(const ImageBytes& bytes) {
  const auto raw = number_at<Ehdr>(bytes, 0);
  if (!raw) return bad_core("its header is cut off", "the dump may be incomplete");
  return Header{.type = raw->e_type,
                .machine = raw->e_machine,
                .table = raw->e_phoff,
                .count = raw->e_phnum,
                .entry_size = raw->e_phentsize,
                .sections = raw->e_shoff,
                .wide = sizeof(Ehdr) == sizeof(Elf64_Ehdr)};
}

Result<Header> read_header(const ImageSource& source) {
  if (source.start.size() < EI_NIDENT) return bad_core("its header is cut off");
  const auto kind = source.start[EI_CLASS];
  if (kind != ELFCLASS64 && kind != ELFCLASS32) return bad_core("neither of 64 nor of 32 bits");
  VMSIGHT_TRY(Header header, kind == ELFCLASS64 ? header_of<Elf64_Ehdr>(*source.bytes)
                                                : header_of<Elf32_Ehdr>(*source.bytes));
  if (header.type != ET_CORE) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "read ELF core: the file is an ELF program, not a core"};
  }
  const bool x86 = header.machine == EM_X86_64 || header.machine == EM_386;
  if (!x86 || source.start[EI_DATA] != ELFDATA2LSB) {
    return Error{.code = ErrorCode::unsupported, .message = "read ELF core: not of an x86 machine"};
  }
  if (header.count == PN_XNUM) {  // more than fit: the first section says how many
    const std::uint64_t at = header.sections + (header.wide ? offsetof(Elf64_Shdr, sh_info)
                                                            : offsetof(Elf32_Shdr, sh_info));
    const auto count = number_at<std::uint32_t>(*source.bytes, at);
    if (!count) return bad_core("the number of its segments is cut off");
    header.count = *count;
  }
  const std::size_t size = header.wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  if (header.count > max_segments) return bad_core("too many segments");
  if (header.count > 0 && header.entry_size != size) return bad_core("segments of unknown size");
  return header;
}

Elf64_Phdr wide_of(const Elf64_Phdr& header) { return header; }
Elf64_Phdr wide_of(const Elf32_Phdr& header) {
  const auto none = ~std::uint32_t{0};
  return {.p_type = header.p_type,
          .p_flags = header.p_flags,
          .p_offset = header.p_offset,
          .p_vaddr = header.p_vaddr,
          .p_paddr = header.p_paddr == none ? ~std::uint64_t{0} : header.p_paddr,
          .p_filesz = header.p_filesz,
          .p_memsz = header.p_memsz,
          .p_align = header.p_align};
}

template <typename Phdr>
Result<std::vector<Elf64_Phdr>> table_of(const ImageBytes& bytes, const Header& header) {
  const std::uint64_t size = header.count * sizeof(Phdr);
  if (header.table > bytes.size() || size > bytes.size() - header.table) {
    return bad_core("its segments' headers are cut off", "the dump may be incomplete");
  }
  std::vector<Phdr> raw(header.count);
  VMSIGHT_TRY_VOID(bytes.read(header.table, std::as_writable_bytes(std::span(raw))));
  std::vector<Elf64_Phdr> table;
  for (const Phdr& one : raw) table.push_back(wide_of(one));
  return table;
}

Result<NoteWriter> read_notes_at(const ImageBytes& bytes, const Elf64_Phdr& header, Image& image) {
  if (header.p_filesz > max_notes) return bad_core("notes are too long");
  if (header.p_offset > bytes.size() || header.p_filesz > bytes.size() - header.p_offset) {
    image.problems.emplace_back("notes (registers of the vCPUs) end beyond the file");
    return NoteWriter::other;
  }
  std::vector<std::byte> notes(header.p_filesz);
  VMSIGHT_TRY_VOID(bytes.read(header.p_offset, notes));
  return read_notes(notes, image);
}

Result<void> read_segments(const ImageBytes& bytes, std::span<const Elf64_Phdr> table,
                           Image& image) {
  constexpr std::uint64_t none = ~std::uint64_t{0};
  bool lost = false, virtualbox = false;
  for (const Elf64_Phdr& header : table) {
    const bool empty = header.p_type == PT_LOAD && header.p_memsz == 0;
    if (header.p_type == PT_NULL || empty) lost = true;  // nobody writes these
    if (header.p_type == PT_NOTE) {
      VMSIGHT_TRY(const NoteWriter writer, read_notes_at(bytes, header, image));
      virtualbox = virtualbox || writer == NoteWriter::virtualbox;
    }
    const bool virtual_only = header.p_paddr == none || header.p_offset == none;  // not RAM
    const bool devices = virtualbox && header.p_filesz == 0;  // VirtualBox lists their ranges so
    if (header.p_type != PT_LOAD || virtual_only || devices) continue;
    VMSIGHT_TRY_VOID(
        add_segment(image, {header.p_paddr, header.p_memsz, header.p_offset, header.p_filesz}));
  }
  if (lost) image.problems.emplace_back("program headers are empty: memory may be missing");
  return {};
}

void sort_by_start(std::vector<ImageSegment>& segments) {
  std::stable_sort(segments.begin(), segments.end(),
                   [](const auto& a, const auto& b) { return a.start < b.start; });
}

/// What of a segment is in the file, up to a whole page, and what was left out.
void split(const ImageSegment& segment, std::vector<ImageSegment>& held,
           std::vector<ImageSegment>& absent) {
  const std::uint64_t size = (segment.file_size + page_size - 1) & ~(page_size - 1);
  ImageSegment part = segment;
  part.size = size;
  if (size > 0) held.push_back(part);
  if (size < segment.size) absent.push_back({segment.start + size, segment.size - size, 0, 0});
}

std::vector<ImageSegment> cut_overlaps(std::vector<ImageSegment> segments) {
  sort_by_start(segments);
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

/// What of `absent` none of `held` covers; both sorted and without overlaps.
std::vector<ImageSegment> not_covered(const std::vector<ImageSegment>& absent,
                                      const std::vector<ImageSegment>& held) {
  std::vector<ImageSegment> left;
  auto cover = held.begin();
  for (const ImageSegment& segment : absent) {
    const GuestPhys end = segment.start + segment.size;
    GuestPhys at = segment.start;
    while (cover != held.end() && cover->start + cover->size <= at) ++cover;
    for (auto next = cover; next != held.end() && next->start < end; ++next) {
      if (next->start > at) left.push_back({at, next->start - at, 0, 0});
      at = std::max(at, next->start + next->size);
    }
    if (at < end) left.push_back({at, end - at, 0, 0});
  }
  return left;
}

/// Page tables map memory more than once, and so do dumps made along them (paging=true, kdump's
/// kernel text): of what overlaps, the first segment is kept, and what is there hides what is absent.
std::vector<ImageSegment> without_overlaps(const std::vector<ImageSegment>& segments) {
  std::vector<ImageSegment> held, absent;
  for (const ImageSegment& segment : segments) split(segment, held, absent);
  held = cut_overlaps(std::move(held));
  const auto left = not_covered(cut_overlaps(std::move(absent)), held);
  held.insert(held.end(), left.begin(), left.end());
  sort_by_start(held);
  return held;
}

/// How much of a segment's bytes the file holds.
std::uint64_t held_bytes(const ImageBytes& bytes, const ImageSegment& segment) {
  if (segment.file_offset >= bytes.size()) return 0;
  return std::min(segment.file_size, bytes.size() - segment.file_offset);
}

/// An error if nothing is left.
Result<void> look_for_missing(const ImageBytes& bytes, Image& image) {
  std::uint64_t held = 0, missing = 0;
  std::optional<GuestPhys> first;
  for (const ImageSegment& segment : image.segments) {
    const std::uint64_t here = held_bytes(bytes, segment);
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

/// Of a process all segments are at physical address 0.
bool is_of_process(const Image& image) {
  return image.segments.size() > 1 &&
         std::all_of(image.segments.begin(), image.segments.end(),
                     [](const auto& s) { return s.start == GuestPhys(0); });
}

bool is_elf(const ImageSource& source) { return source.start.starts_with(ELFMAG); }

Result<Image> read_elf(const ImageSource& source) {
  const ImageBytes& bytes = *source.bytes;
  VMSIGHT_TRY(const Header header, read_header(source));
  VMSIGHT_TRY(const auto table, header.wide ? table_of<Elf64_Phdr>(bytes, header)
                                            : table_of<Elf32_Phdr>(bytes, header));
  Image image;
  image.format = "elf";
  VMSIGHT_TRY_VOID(read_segments(bytes, table, image));
  if (image.segments.empty())
    return bad_core("no memory in it", "Xen's dump-core keeps it in a way that is not read");
  if (is_of_process(image)) {
    return bad_core("it has no physical addresses: the core of a process, not of a machine",
                    "use dump-guest-memory of the QEMU monitor");
  }
  image.segments = without_overlaps(image.segments);
  VMSIGHT_TRY_VOID(look_for_missing(bytes, image));
  return image;
}

}  // namespace

extern const ImageFormat elf_format;
const ImageFormat elf_format{is_elf, read_elf};

}  // namespace vmsight
