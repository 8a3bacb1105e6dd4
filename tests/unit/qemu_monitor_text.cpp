// Whole answers are in replay/; here are the spellings and the damage.
#include "qemu/monitor_text.h"

#include <gtest/gtest.h>

#include <array>

namespace vmsight::qemu_monitor_text_test {
namespace {

std::string view(std::string_view ranges) {
  return fmt::format(
      "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n"
      "  0000000000000000-0000000000000007 (prio 0, ram): decoy\n\n"
      "FlatView #1\n AS \"memory\", root: system\n AS \"cpu-memory-0\", root: system\n"
      " Root memory region: system\n{}\n",
      ranges);
}

TEST(ParseFlatView, TakesMemoryOfTheRightView) {
  auto ranges = parse_flat_view(
      view("  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM\n"
           "  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\n"
           "  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\n"
           "  0000000100000000-000000017fffffff (prio 0, ram): pc.ram @00000000c0000000 KVM\n"
           "  0000000200000000-00000002000fffff (prio 0, nv-ram): nv @0000000000001000\n"));
  ASSERT_TRUE(ranges) << ranges.error().message;
  ASSERT_EQ(ranges->size(), 4u);
  EXPECT_EQ((*ranges)[0].name, "pc.ram");
  EXPECT_EQ((*ranges)[0].size, 0xa0000u);
  EXPECT_EQ((*ranges)[1].name, "pc.rom");
  EXPECT_EQ((*ranges)[2].start, GuestPhys(0x100000000));
  EXPECT_EQ((*ranges)[2].offset, 0xc0000000u);
  EXPECT_EQ((*ranges)[3].offset, 0x1000u);
}

TEST(ParseFlatView, RefusesDamage) {
  EXPECT_FALSE(parse_flat_view(""));
  EXPECT_FALSE(parse_flat_view("FlatView #0\n AS \"I/O\", root: io\n"));
  for (const char* line :
       {"  x\n", "  00-ff\n", "  ff-00 (prio 0, ram): r\n", "  00-ff (prio 0): r\n",
        "  00-ff (prio 0, ram): r @z\n", "  00-ff (prio 0, ram)\n", "  -ff (prio 0, ram): r\n"}) {
    EXPECT_FALSE(parse_flat_view(view(line))) << line;
  }
}

TEST(ParseFlatView, TheWholeAddressSpaceIsNoMemory) {
  auto ranges = parse_flat_view(view("  0000000000000000-ffffffffffffffff (prio 0, ram): r\n"));
  ASSERT_TRUE(ranges);
  EXPECT_TRUE(ranges->empty());
}

TEST(ParseGpa2hva, ReadsTheAddress) {
  auto host = parse_gpa2hva("Host virtual address for 0x1000000 (pc.ram) is 0x7f1323fff000\n");
  ASSERT_TRUE(host);
  EXPECT_EQ(*host, HostVirt(0x7f1323fff000));
  EXPECT_FALSE(parse_gpa2hva("No memory is mapped at address 0x100000000\n"));
  EXPECT_FALSE(parse_gpa2hva("Host virtual address for 0x1 (r) is 0x\n"));
}

constexpr std::string_view vcpu =
    "CPU#3\nRAX=0 RBX=0\nRIP=ffffffff86a17a0b RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=1\n"
    "FS =0000 0000000000000000 00000000 00000000\n"
    "GS =0033 00007f0000001000 00000000 00000000\n"
    "CR0=80050033 CR2=00000000004edfc8 CR3=00000001bad96000 CR4=00751eb0\n";

TEST(ParseRegisters, LongMode) {
  auto all = parse_registers(vcpu);
  ASSERT_TRUE(all) << all.error().message;
  ASSERT_EQ(all->size(), 1u);
  EXPECT_EQ(all->front().index, 3u);
  EXPECT_EQ(all->front().rip, 0xffffffff86a17a0bu);
  EXPECT_EQ(all->front().gs_base, 0x7f0000001000u);
  EXPECT_EQ(all->front().cr3, 0x1bad96000u);
  EXPECT_EQ(all->front().cr4, 0x751eb0u);
  EXPECT_EQ(all->front().cpl, 3u);
  EXPECT_TRUE(all->front().halted);
}

TEST(ParseRegisters, RefusesDamage) {
  EXPECT_FALSE(parse_registers(""));
  EXPECT_FALSE(parse_registers("CPU#x\n"));
  for (const char* part : {"RIP=", "CR3=", "CR4=", "CPL=", "HLT=", "\nGS ="}) {
    std::string broken(vcpu);
    broken.erase(broken.find(part), 5);
    EXPECT_FALSE(parse_registers(broken)) << part;
  }
}

// QEMU 7.2 and 11.1: xp /4gx 0x1000000.
TEST(ParseXp, ReadsWords) {
  constexpr std::string_view text =
      "0000000001000000: 0x0123456789abcdef 0x0000000000000000\r\n"
      "0000000001000010: 0xffffffffffffffff 0x0000000000000001\r\n";
  std::array<std::byte, 32> words{};
  ASSERT_TRUE(parse_xp(text, GuestPhys(0x1000000), words));
  EXPECT_EQ(words[0], std::byte{0xef});
  EXPECT_EQ(words[7], std::byte{0x01});
  EXPECT_EQ(words[16], std::byte{0xff});
  EXPECT_EQ(words[24], std::byte{0x01});
}

TEST(ParseXp, RefusesWhatWasNotAskedFor) {
  std::array<std::byte, 16> words{};
  for (const std::string_view text :
       {"", "Cannot access memory\n", "0000000001000000: 0x01\n",
        "0000000001000000: 0x01 0x02\n0000000001000010: 0x03 0x04\n",
        "0000000001000008: 0x01 0x02\n", "0000000001000000: 0x01 zz\n",
        "0000000001000000: 0x01 0x02 \n"}) {
    EXPECT_FALSE(parse_xp(text, GuestPhys(0x1000000), words)) << text;
  }
}

}  // namespace
}  // namespace vmsight::qemu_monitor_text_test
