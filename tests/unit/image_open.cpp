#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <elf.h>
#include <cstring>
#include <fstream>

#include "base/os.h"
#include "vmsight/image.h"

namespace vmsight::image_open_test {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t mebibyte = 1u << 20;

class TemporaryFile {
 public:
  TemporaryFile() : path_(testing::TempDir() + "vmsight-image-XXXXXX") {
    fd_ = UniqueFd(::mkstemp(path_.data()));
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }
  void write(std::uint64_t offset, std::string_view bytes) {
    EXPECT_EQ(::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
  }
  void resize(std::uint64_t size) {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
  }

 private:
  std::string path_;
  UniqueFd fd_;
};

template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string padded(std::string text) {
  text.resize((text.size() + 3) / 4 * 4);
  return text;
}

std::string note(std::string name, std::string_view content, std::uint32_t type = 0) {
  name += '\0';
  const Elf64_Nhdr header{static_cast<Elf64_Word>(name.size()),
                          static_cast<Elf64_Word>(content.size()), type};
  return bytes_of(header) + padded(name) + padded(std::string(content));
}

/// The QEMU note of a vCPU: u64 fields after an 8-byte head; see arch_dump.c of QEMU.
std::string cpu_note(std::uint64_t rip, std::uint64_t cr3, std::uint64_t cr4, std::uint64_t gs) {
  std::vector<std::uint64_t> words(55);
  words[17] = rip;
  words[19] = 3;               // cs.selector
  words[19 + 4 * 3 + 2] = gs;  // gs.base
  words[19 + 10 * 3 + 3] = cr3;
  words[19 + 10 * 3 + 4] = cr4;
  return {reinterpret_cast<const char*>(words.data()), words.size() * 8};
}

struct Core {
  std::string notes;
  std::vector<Elf64_Phdr> loads;
  std::uint16_t type = ET_CORE, machine = EM_X86_64;

  void add(std::uint64_t gpa, std::uint64_t size, std::uint64_t offset) {
    add(gpa, size, offset, size);
  }
  void add(std::uint64_t gpa, std::uint64_t size, std::uint64_t offset, std::uint64_t in_file) {
    loads.push_back({.p_type = PT_LOAD,
                     .p_flags = 0,
                     .p_offset = offset,
                     .p_vaddr = 0,
                     .p_paddr = gpa,
                     .p_filesz = in_file,
                     .p_memsz = size,
                     .p_align = 0});
  }
  std::string bytes() const {
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = type;
    header.e_machine = machine;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof header;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = static_cast<std::uint16_t>(loads.size() + 1);
    Elf64_Phdr note_header{};
    note_header.p_type = PT_NOTE;
    note_header.p_offset = sizeof header + header.e_phnum * sizeof(Elf64_Phdr);
    note_header.p_filesz = notes.size();
    std::string all = bytes_of(header) + bytes_of(note_header);
    for (const Elf64_Phdr& load : loads) all += bytes_of(load);
    return all + notes;
  }
};

Result<Image> open_core(const Core& core, std::uint64_t file_size) {
  TemporaryFile file;
  file.write(0, core.bytes());
  if (file_size > 0) file.resize(file_size);
  return open_image(file.path());
}

TEST(ElfCore, SegmentsRegistersAndVmcoreinfo) {
  Core core;
  core.notes = note("CORE", std::string(336, 'x')) + note("QEMU", cpu_note(1, 2, 3, 4)) +
               note("QEMU", cpu_note(5, 6, 7, 8)) + note("VMCOREINFO", "OSRELEASE=6.1\n");
  core.add(0x100000000, 8192, 3 * 4096);
  core.add(0, 4096, 2 * 4096);
  auto image = open_core(core, 5 * 4096);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->format, "elf");
  ASSERT_EQ(image->segments.size(), 2u);
  EXPECT_EQ(image->segments[1].start, GuestPhys(0x100000000));
  EXPECT_EQ(image->segments[1].file_offset, 3u * 4096);
  EXPECT_EQ(image->ram.total_bytes(), 3u * 4096);
  ASSERT_EQ(image->registers.size(), 2u);
  EXPECT_EQ(image->registers[1].index, 1u);
  EXPECT_EQ(image->registers[1].rip, 5u);
  EXPECT_EQ(image->registers[1].cr3, 6u);
  EXPECT_EQ(image->registers[1].cr4, 7u);
  EXPECT_EQ(image->registers[1].gs_base, 8u);
  EXPECT_EQ(image->registers[1].cpl, 3u);
  EXPECT_EQ(image->vmcoreinfo, "OSRELEASE=6.1\n");
}

TEST(ElfCore, ATruncatedOneIsReadAsFarAsItGoes) {
  Core core;
  core.add(0, 64 * 4096, 4096);
  auto image = open_core(core, 32 * 4096 + 100);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->ram.total_bytes(), 64u * 4096) << "what is missing is RAM all the same";
  ASSERT_EQ(image->problems.size(), 1u);
  EXPECT_EQ(image->problems[0], fmt::format("the file ends too early: {} bytes of memory are "
                                            "missing, the first at gpa:0x1f000",
                                            33 * 4096 - 100));
}

TEST(ElfCore, OneWithoutAnyOfItsMemoryIsAnError) {
  Core core;
  core.add(0, 64 * 4096, 4096);
  core.add(64 * 4096, 64 * 4096, 65 * 4096);
  auto image = open_core(core, 4096 + 4095);
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code, ErrorCode::bad_data);
  EXPECT_THAT(image.error().message, HasSubstr("beyond the end of the file"));
  EXPECT_FALSE(image.error().hint.empty());
}

TEST(ElfCore, EveryCutIsAnErrorOrAProblem) {
  Core core;
  core.notes = note("QEMU", cpu_note(1, 2, 3, 4));
  core.add(0, 4096, 0);  // the headers are all that the cuts leave of it
  core.add(4096, 4096, 4096);
  const std::string whole = core.bytes();
  ASSERT_LT(whole.size(), 4096u);
  for (std::size_t length = 0; length <= whole.size(); length += 7) {
    TemporaryFile file;
    file.write(0, whole.substr(0, length));
    EXPECT_FALSE(open_image(file.path())) << length << ": not even a page of memory";
    file.resize(4096);
    const auto padded = open_image(file.path());
    EXPECT_TRUE(!padded || !padded->problems.empty()) << length;
  }
}

TEST(ElfCore, NotesBeyondTheEndAreAProblem) {
  Core core;
  core.add(0, 4096, 0);
  core.notes = std::string(8192, 'x');
  TemporaryFile file;
  file.write(0, core.bytes().substr(0, 4096));
  const auto image = open_image(file.path());
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_THAT(image->problems, testing::ElementsAre(HasSubstr("notes")));
  EXPECT_TRUE(image->registers.empty());
}

TEST(ElfCore, NamesTheKernelThatWasRead) {
  Core core;
  core.add(0, 4096, 4096);
  core.notes = note("VMSIGHT", bytes_of(std::uint64_t{0x1234000}), 1);
  EXPECT_EQ(open_core(core, 2 * 4096)->kernel_page_table, GuestPhys(0x1234000));
  core.notes = note("VMSIGHT", bytes_of(std::uint64_t{0x1234000}), 2);
  EXPECT_EQ(open_core(core, 2 * 4096)->kernel_page_table, std::nullopt) << "of a later version";
  core.notes = note("VMSIGHT", "short", 1);
  EXPECT_EQ(open_core(core, 2 * 4096)->kernel_page_table, std::nullopt);
}

TEST(ElfCore, OverlapsAreCut) {
  Core core;  // as with paging=true: memory seen twice, and mappings that are not memory
  core.add(0, 4 * 4096, 4096);
  core.add(2 * 4096, 4 * 4096, 5 * 4096);
  core.add(4096, 4096, 9 * 4096);
  core.add(~std::uint64_t{0}, 4096, 4096);
  core.add(0xfee00000, 4096, ~std::uint64_t{0}, 0);
  auto image = open_core(core, 16 * 4096);
  ASSERT_TRUE(image) << image.error().message;
  ASSERT_EQ(image->segments.size(), 2u);
  EXPECT_EQ(image->segments[1].start, GuestPhys(4 * 4096));
  EXPECT_EQ(image->segments[1].size, 2u * 4096);
  EXPECT_EQ(image->segments[1].file_offset, 7u * 4096);
}

TEST(ElfCore, WhatADumpLeftOutIsAbsentAndCounted) {
  Core core;
  core.add(0, 4096, 4096);
  core.add(0x100000, 64 * mebibyte, 0, 0);
  core.add(0x8000000, 4 * 4096, 4096, 4096 + 100);  // a page of which a part is there is none
  auto image = open_core(core, 3 * 4096);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->segments[1].file_size, 0u);
  EXPECT_EQ(image->segments[1].size, 64 * mebibyte);
  EXPECT_EQ(image->segments[1].rest, ImageRest::missing);
  EXPECT_EQ(image->absent_bytes, 64 * mebibyte + 3 * 4096);
  ASSERT_EQ(image->problems.size(), 1u) << "it is said once";
  EXPECT_THAT(image->problems[0], HasSubstr("67121152 bytes of memory (64 MiB) were left out"));
}

TEST(ElfCore, WhatIsThereHidesWhatIsAbsent) {
  Core core;  // the kernel's image, of which pages were left out, lies in RAM that has some of them
  core.add(0x4000, 8 * 4096, 4096, 0);
  core.add(0, 6 * 4096, 4096);
  core.add(0x8000, 4096, 9 * 4096);
  core.add(0xa000, 4096, 8 * 4096);
  const auto image = open_core(core, 10 * 4096);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->ram.total_bytes(), 12u * 4096);
  EXPECT_EQ(image->absent_bytes, 4u * 4096);  // 6, 7, 9 and 11
  std::vector<std::uint64_t> held;
  for (const ImageSegment& segment : image->segments) {
    if (segment.file_size > 0) held.push_back(segment.start.raw());
  }
  EXPECT_THAT(held, testing::ElementsAre(0, 0x8000, 0xa000));
}

TEST(ElfCore, WhatADumpLeftOutIsZeroIfTheUserSaysSo) {
  Core core;
  core.add(0, 4096, 4096);
  core.add(0x100000, 64 * mebibyte, 0, 0);
  TemporaryFile file;
  file.write(0, core.bytes());
  file.resize(2 * 4096);
  const auto image = open_image(file.path(), {.absent_is_zero = true});
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->segments[1].rest, ImageRest::zeros);
  EXPECT_EQ(image->absent_bytes, 0u);
  EXPECT_TRUE(image->problems.empty());
}

/// VBCPU, after DBGFCORECPU of VirtualBox's include/VBox/dbgfcorefmt.h.
TEST(ElfCore, VirtualBoxTellsRegistersAndListsDevices) {
  std::vector<std::uint64_t> words(60);
  words[0] = 11;           // rax
  words[6] = 18;           // r8
  words[14] = 1;           // rip
  words[15] = 14;          // rsp
  words[17] = 2;           // rflags
  words[18 + 2] = 3;       // cs.selector
  words[18 + 4 * 3] = 4;   // gs.base
  words[36 + 2] = 0x5000;  // cr3
  words[36 + 3] = 6;       // cr4
  Core core;
  core.notes =
      note("VBCORE", std::string(24, 'x'), 0xb00) +
      note("VBCPU", {reinterpret_cast<const char*>(words.data()), words.size() * 8}, 0xb01);
  core.add(0, 4096, 4096);
  core.add(0xe0000000, 16 * mebibyte, 4096, 0);  // of a device
  const auto image = open_core(core, 2 * 4096);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->ram.total_bytes(), 4096u);
  EXPECT_TRUE(image->problems.empty());
  ASSERT_EQ(image->registers.size(), 1u);
  const VcpuRegisters& vcpu = image->registers[0];
  EXPECT_EQ(vcpu.rip, 1u);
  EXPECT_EQ(vcpu.cr3, 0x5000u);
  EXPECT_EQ(vcpu.cr4, 6u);
  EXPECT_EQ(vcpu.gs_base, 4u);
  EXPECT_EQ(vcpu.cpl, 3u);
  EXPECT_EQ(vcpu.general[0], 11u);
  EXPECT_EQ(vcpu.general[6], 14u) << "rsp";
  EXPECT_EQ(vcpu.general[8], 18u);
}

TEST(ElfCore, OtherElfsAreNamed) {
  Core core;
  core.add(0, 4096, 4096);
  core.type = ET_EXEC;
  EXPECT_THAT(open_core(core, 8192).error().message, HasSubstr("not a core"));
  core.type = ET_CORE;
  core.machine = EM_AARCH64;
  EXPECT_THAT(open_core(core, 8192).error().message, HasSubstr("x86"));
  core.machine = EM_X86_64;
  core.add(0, 4096, 4096);
  EXPECT_THAT(open_core(core, 8192).error().message, HasSubstr("process"));
  core.loads.clear();
  EXPECT_THAT(open_core(core, 8192).error().message, HasSubstr("no memory"));
}

TEST(ElfCore, AWrappingSegmentIsAnError) {
  Core core;
  core.add(0xfffffffffffff000, 1u << 20, 4096, 4096);
  EXPECT_FALSE(open_core(core, 8192));
}

TEST(ElfCore, DamagedNotesAreHarmless) {
  Core core;
  core.add(0, 4096, 4096);
  const Elf64_Nhdr huge{0xffffffff, 0xffffffff, 0};
  for (const std::string& notes : {bytes_of(huge), note("QEMU", "short"), std::string("x"),
                                   note("", ""), std::string(64, '\xff')}) {
    core.notes = notes;
    auto image = open_core(core, 8192);
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_TRUE(image->registers.empty());
  }
}

TEST(OpenImage, SaysWhatOtherFilesAre) {
  using namespace std::string_view_literals;
  const std::vector<std::pair<std::string_view, std::string_view>> files = {
      {"QFI\xfb\0\0\0\3"sv, "qcow2"},
      {"PAGEDU64", "Windows"},
      {"BZh91AY", "bzip2"},
      {"\x89LZO\0\r\n\x1a\n"sv, "lzop"},
      {"PK\3\4", "zip"},
      {"\xd2\xbe\xd2\xbe\x08\0\0\0"sv, "VMware"},
      {"\x7fVirtualBox SavedState V2.0\n", "VirtualBox"}};
  for (const auto& [magic, what] : files) {
    TemporaryFile file;
    file.write(0, magic);
    file.resize(2 * mebibyte);
    auto image = open_image(file.path());
    ASSERT_FALSE(image) << what;
    EXPECT_EQ(image.error().code, ErrorCode::unsupported);
    EXPECT_THAT(image.error().message, HasSubstr(what));
    EXPECT_FALSE(image.error().hint.empty());
  }
}

TEST(OpenImage, RefusesWhatIsNoImage) {
  EXPECT_EQ(open_image("/nonexistent").error().os_errno, ENOENT);
  EXPECT_FALSE(open_image("/proc"));
  EXPECT_FALSE(open_image("/dev/zero"));
  TemporaryFile file;
  EXPECT_FALSE(open_image(file.path()));
  file.resize(4096);
  EXPECT_FALSE(open_image(file.path()));
  file.resize(2 * mebibyte + 1);
  EXPECT_FALSE(open_image(file.path()));
}

/// ACPI's root pointer as SeaBIOS leaves it, the table it points to, and the reset vector.
void write_firmware(TemporaryFile& file, std::uint32_t rsdt) {
  file.write(0xf5ac0, "RSD PTR " + std::string(8, 'x') + bytes_of(rsdt) + "xxxx");
  file.write(rsdt, "RSDT");
  file.write(0xffff0, "\xea\x5b\xe0\x0f\xf0\x30\x36\x2f");
}

TEST(RawImage, ASmallOneIsWhole) {
  TemporaryFile file;
  file.resize(512 * mebibyte);
  auto image = open_image(file.path());
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->format, "raw");
  EXPECT_EQ(image->ram.end(), GuestPhys(512 * mebibyte));
  EXPECT_FALSE(image->ram.contains(GuestPhys(0xa0000)));
}

TEST(RawImage, TheFirmwareTellsTheSplit) {
  struct Expected {
    std::uint32_t rsdt;
    std::uint64_t split;
  };
  for (const Expected& expected : {Expected{0x7ffe2362, 2048 * mebibyte},     // q35
                                   Expected{0xbffe2362, 3072 * mebibyte},     // pc
                                   Expected{0xdffe2362, 3584 * mebibyte}}) {  // pc before 2.0
    TemporaryFile file;
    file.resize(5120 * mebibyte);
    write_firmware(file, expected.rsdt);
    auto image = open_image(file.path());
    ASSERT_TRUE(image) << image.error().message;
    ASSERT_EQ(image->segments.size(), 3u);
    EXPECT_EQ(image->segments[2].start, GuestPhys(4096 * mebibyte));
    EXPECT_EQ(image->segments[2].file_offset, expected.split);
    EXPECT_EQ(image->segments[2].size, 5120 * mebibyte - expected.split);
    EXPECT_EQ(image->segments[1].size, expected.split - 0xc0000);
  }
}

TEST(RawImage, AllOfPhysicalMemoryHasAHole) {
  TemporaryFile file;
  file.resize(6144 * mebibyte);
  write_firmware(file, 0xbffe2362);
  file.write(4096 * mebibyte - 16, "\xea\x5b\xe0\x0f\xf0\x30\x36\x2f");
  auto image = open_image(file.path());
  ASSERT_TRUE(image) << image.error().message;
  ASSERT_EQ(image->segments.size(), 3u);
  EXPECT_EQ(image->segments[2].file_offset, 4096 * mebibyte);
  EXPECT_EQ(image->segments[2].size, 2048 * mebibyte);
}

TEST(RawImage, WithoutFirmwareALargeOneIsAmbiguous) {
  TemporaryFile file;
  file.resize(5120 * mebibyte);
  EXPECT_EQ(open_image(file.path()).error().code, ErrorCode::ambiguous);
  write_firmware(file, 0xfffffff0);  // points into the hole: no table there
  file.write(0xf5ac0 + 16, bytes_of(std::uint32_t{16}));
  EXPECT_EQ(open_image(file.path()).error().code, ErrorCode::ambiguous);
}

}  // namespace
}  // namespace vmsight::image_open_test
