#include "agent/program/kcore.h"

#include <elf.h>
#include <algorithm>
#include <cstring>

namespace vmsight::agent {
namespace {

/// Above are the kernel's own text and its modules, whose physical addresses kcore tells too.
constexpr std::uint64_t kernel_text = 0xffff'ffff'8000'0000;
constexpr std::uint64_t max_physical = 1ull << 52;

template <typename T>
std::optional<T> take(std::span<const std::byte> from, std::uint64_t offset) {
  if (offset > from.size() || from.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, from.data() + offset, sizeof value);
  return value;
}

std::optional<Elf64_Ehdr> header_of(std::span<const std::byte> head) {
  const auto header = take<Elf64_Ehdr>(head, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return std::nullopt;
  if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_type != ET_CORE ||
      header->e_machine != EM_X86_64 || header->e_phentsize != sizeof(Elf64_Phdr)) {
    return std::nullopt;
  }
  return header;
}

bool is_ram(const Elf64_Phdr& mapping) {
  return mapping.p_type == PT_LOAD && mapping.p_paddr < max_physical && mapping.p_memsz > 0 &&
         mapping.p_memsz <= max_physical - mapping.p_paddr && mapping.p_vaddr < kernel_text &&
         mapping.p_offset <= INT64_MAX - mapping.p_memsz;
}

}  // namespace

std::optional<std::size_t> kcore_head_size(std::span<const std::byte> header) {
  const auto found = header_of(header);
  if (!found || found->e_phoff > kcore_max_head) return std::nullopt;
  return std::min<std::size_t>(found->e_phoff + found->e_phnum * sizeof(Elf64_Phdr),
                               kcore_max_head);
}

std::size_t find_segments(std::span<const std::byte> head, std::span<Segment> into) {
  const auto header = header_of(head);
  if (!header || header->e_phoff > head.size()) return 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < header->e_phnum && count < into.size(); ++i) {
    const auto mapping = take<Elf64_Phdr>(head, header->e_phoff + i * sizeof(Elf64_Phdr));
    if (!mapping) break;
    if (is_ram(*mapping)) into[count++] = {mapping->p_paddr, mapping->p_memsz, mapping->p_offset};
  }
  const auto found = into.first(count);
  std::sort(found.begin(), found.end(),
            [](const Segment& a, const Segment& b) { return a.start < b.start; });
  std::uint64_t reached = 0;
  const auto end = std::remove_if(found.begin(), found.end(), [&](const Segment& segment) {
    if (segment.start < reached) return true;
    reached = segment.start + segment.size;
    return false;
  });
  return static_cast<std::size_t>(end - found.begin());
}

const Segment* find_segment(std::span<const Segment> segments, std::uint64_t address) {
  const auto after =
      std::upper_bound(segments.begin(), segments.end(), address,
                       [](std::uint64_t at, const Segment& segment) { return at < segment.start; });
  if (after == segments.begin()) return nullptr;
  const Segment& segment = *std::prev(after);
  return address - segment.start < segment.size ? &segment : nullptr;
}

}  // namespace vmsight::agent
