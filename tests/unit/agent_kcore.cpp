#include "agent/program/kcore.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

namespace vmsight::agent::agent_kcore_test {
namespace {

constexpr std::uint64_t direct_map = 0xffff'8880'0000'0000, nowhere = ~0ull;

struct Mapping {
  std::uint64_t virt, phys, size, offset;
  unsigned type = PT_LOAD;
};

std::vector<std::byte> kcore(const std::vector<Mapping>& mappings) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(mappings.size());
  std::vector<std::byte> bytes(sizeof header + mappings.size() * sizeof(Elf64_Phdr));
  std::memcpy(bytes.data(), &header, sizeof header);
  for (std::size_t i = 0; i < mappings.size(); ++i) {
    const Mapping& m = mappings[i];
    Elf64_Phdr program{};
    program.p_type = m.type;
    program.p_vaddr = m.virt;
    program.p_paddr = m.phys;
    program.p_memsz = program.p_filesz = m.size;
    program.p_offset = m.offset;
    std::memcpy(bytes.data() + sizeof header + i * sizeof program, &program, sizeof program);
  }
  return bytes;
}

std::vector<Segment> segments_of(const std::vector<std::byte>& head) {
  std::vector<Segment> segments(16);
  segments.resize(find_segments(head, segments));
  return segments;
}

TEST(Kcore, FindsTheDirectMap) {
  const auto head = kcore({
      {0, 0, 0x1000, 0x200, PT_NOTE},
      {0xffff'ffff'8100'0000, 0x100'0000, 0x200'0000, 0x7fff'8100'3000},  // the kernel's text
      {0xffff'c900'0000'0000, nowhere, 1ull << 45, 0x4900'0000'3000},     // vmalloc
      {direct_map + 0x10'0000, 0x10'0000, 0x1fe0'0000, 0x880'0010'3000},
      {direct_map + 0x1000, 0x1000, 0x9e000, 0x880'0000'4000},
      {0xffff'ea00'0000'0000, nowhere, 0x80'0000, 0x6a00'0000'3000},  // struct pages
  });
  EXPECT_EQ(kcore_head_size(std::span(head).first(kcore_header_size)), head.size());
  const auto segments = segments_of(head);
  ASSERT_EQ(segments.size(), 2u);
  EXPECT_EQ(segments[0].start, 0x1000u);
  EXPECT_EQ(segments[0].size, 0x9e000u);
  EXPECT_EQ(segments[1].offset, 0x880'0010'3000u);
  EXPECT_EQ(find_segment(segments, 0xfff), nullptr);
  EXPECT_EQ(find_segment(segments, 0x1000), &segments[0]);
  EXPECT_EQ(find_segment(segments, 0x9efff), &segments[0]);
  EXPECT_EQ(find_segment(segments, 0x9f000), nullptr);
  EXPECT_EQ(find_segment(segments, 0x1fef'ffff), &segments[1]);
  EXPECT_EQ(find_segment(segments, 0x1ff0'0000), nullptr);
}

TEST(Kcore, LeavesOutWhatCannotBe) {
  const auto segments = segments_of(kcore({
      {direct_map, 0x10'0000, 0, 0x1000},        // empty
      {direct_map, 0x10'0000, nowhere, 0x1000},  // endless
      {direct_map, 0x10'0000, 0x1000, nowhere},  // beyond any file
      {direct_map, 0x20'0000, 0x2000, 0x1000},
      {direct_map, 0x20'1000, 0x2000, 0x5000},  // overlaps
  }));
  ASSERT_EQ(segments.size(), 1u);
  EXPECT_EQ(segments[0].start, 0x20'0000u);
}

TEST(Kcore, RefusesWhatIsNone) {
  auto head = kcore({{direct_map, 0, 0x1000, 0x1000}});
  EXPECT_EQ(segments_of(head).size(), 1u);
  for (std::size_t size = 0; size < kcore_header_size; ++size) {
    EXPECT_FALSE(kcore_head_size(std::span(head).first(size)));
    EXPECT_TRUE(segments_of({head.begin(), head.begin() + static_cast<long>(size)}).empty());
  }
  EXPECT_TRUE(segments_of({head.begin(), head.end() - 1}).empty()) << "half a program header";
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{EI_CLASS}, offsetof(Elf64_Ehdr, e_type),
        offsetof(Elf64_Ehdr, e_machine), offsetof(Elf64_Ehdr, e_phentsize)}) {
    auto bad = head;
    bad[at] = std::byte{99};
    EXPECT_FALSE(kcore_head_size(bad)) << at;
    EXPECT_TRUE(segments_of(bad).empty()) << at;
  }
}

TEST(Kcore, TakesAsManyAsFit) {
  std::vector<Mapping> many;
  for (std::uint64_t i = 0; i < 40; ++i) many.push_back({direct_map, i << 20, 0x1000, i << 20});
  EXPECT_EQ(segments_of(kcore(many)).size(), 16u);
}

}  // namespace
}  // namespace vmsight::agent::agent_kcore_test
