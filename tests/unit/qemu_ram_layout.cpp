// The rules of each machine type are replayed against QEMU's own words in replay/vm_layout.cpp;
// here is what no recording shows.
#include "qemu/ram_layout.h"

#include <gtest/gtest.h>

namespace vmsight::qemu_ram_layout_test {
namespace {

constexpr std::uint64_t gibibyte = 1u << 30;

CommandLine machine(std::string type, std::uint64_t bytes) {
  CommandLine line;
  line.machine = std::move(type);
  line.memory_bytes = line.maximum_memory_bytes = bytes;
  line.main_memory.push_back({.id = "ram", .size = bytes});
  return line;
}

RamBlock block_of(std::uint64_t bytes) {
  return {.name = "ram", .size = bytes, .host = HostVirt(0x1000)};
}

TEST(DeriveRamMap, RefusesUnknownMachines) {
  auto map = derive_ram_map(machine("isapc", gibibyte), std::vector{block_of(gibibyte)});
  ASSERT_FALSE(map);
  EXPECT_EQ(map.error().code, ErrorCode::unsupported);
  EXPECT_FALSE(map.error().hint.empty());
}

TEST(DeriveRamMap, RefusesSizesThatDependOnTheCpu) {
  const std::uint64_t bytes = 1020 * gibibyte;
  auto map = derive_ram_map(machine("q35", bytes), std::vector{block_of(bytes)});
  ASSERT_FALSE(map);
  EXPECT_EQ(map.error().code, ErrorCode::unsupported);
}

TEST(DeriveRamMap, RefusesBlocksThatDoNotAddUp) {
  auto map = derive_ram_map(machine("pc", gibibyte), std::vector{block_of(gibibyte / 2)});
  ASSERT_FALSE(map);
  EXPECT_EQ(map.error().code, ErrorCode::bad_data);
}

TEST(DeriveRamMap, OverlappingDimmsAreAnError) {
  CommandLine line = machine("pc", gibibyte);
  line.dimms.push_back({.backend = "d", .address = 0});
  auto map = derive_ram_map(line, std::vector{block_of(gibibyte), block_of(gibibyte)});
  ASSERT_FALSE(map);
}

RamMap map_of(std::vector<RamRange> ranges) { return RamMap::from(std::move(ranges)).value(); }

TEST(Difference, LeavesTheFirmwaresAreaOut) {
  const RamMap ours = map_of({{GuestPhys(0), 0xa0000, "r", 0, HostVirt(0)},
                              {GuestPhys(0xc0000), 0x140000, "r", 0xc0000, HostVirt(0xc0000)}});
  const RamMap theirs = map_of({{GuestPhys(0), 0x200000, "r", 0, HostVirt(0)}});
  EXPECT_EQ(difference(ours, theirs), "");
}

TEST(Difference, SaysWhatDiffers) {
  const RamMap ours = map_of({{GuestPhys(0x100000), 0x100000, "r", 0x100000, HostVirt(0x1000)}});
  RamRange other = ours.ranges()[0];
  other.size += page_size;
  EXPECT_NE(difference(ours, map_of({other})), "");
  other = ours.ranges()[0];
  other.host = HostVirt(0x2000);
  EXPECT_NE(difference(ours, map_of({other})), "");
  other = ours.ranges()[0];
  other.start = GuestPhys(4 * gibibyte);
  EXPECT_NE(difference(ours, map_of({ours.ranges()[0], other})), "");
  EXPECT_NE(difference(map_of({ours.ranges()[0], other}), ours), "");
}

}  // namespace
}  // namespace vmsight::qemu_ram_layout_test
