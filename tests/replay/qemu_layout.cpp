// The layout that we derive is the one that the monitor tells, on every recorded QEMU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "host/command_line.h"
#include "host/host_maps.h"
#include "host/libvirt.h"
#include "qemu/layout.h"
#include "qemu/monitor_questions.h"
#include "qemu/monitor_text.h"
#include "qemu/ram_layout.h"
#include "qemu/run_state.h"
#include "replay/fake_qmp.h"

namespace vmsight::qemu_layout_replay {
namespace {

namespace fs = std::filesystem;

const fs::path recordings = fs::path(VMSIGHT_TEST_DATA) / "replay/data/vm";

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> all_cases() {
  std::vector<std::string> cases;
  for (const auto& version : fs::directory_iterator(recordings)) {
    if (!version.is_directory()) continue;
    for (const auto& entry : fs::directory_iterator(version)) {
      cases.push_back(fs::relative(entry, recordings));
    }
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

class Recorded : public testing::TestWithParam<std::string> {
 protected:
  const fs::path home = recordings / GetParam();
  const CommandLine line = parse_command_line(lines_of(home / "arguments")).value();
  const std::vector<HostMapping> maps = parse_maps(text_of(home / "maps")).value();
  test::FakeQmp qemu{nlohmann::json::parse(text_of(home / "qmp.json"))};
};

TEST_P(Recorded, DerivedLayoutIsTheOneTold) {
  auto derived = derive_layout(line, maps, [&] { return Result(text_of(home / "smaps")); });
  ASSERT_TRUE(derived) << derived.error().message;
  auto monitor = QmpClient::negotiate(qemu.take_client());
  ASSERT_TRUE(monitor) << monitor.error().message;
  auto told = ask_layout(*monitor, line);
  ASSERT_TRUE(told) << told.error().message;
  auto map = RamMap::from(told->ranges);
  ASSERT_TRUE(map) << map.error().message;
  EXPECT_EQ(difference(derived->ram, *map), "");
  for (std::size_t i = 0; i < derived->blocks.size(); ++i) {
    const RamBlock& ours = derived->blocks[i];
    const auto same = std::find_if(told->blocks.begin(), told->blocks.end(),
                                   [&](const RamBlock& b) { return b.host == ours.host; });
    ASSERT_NE(same, told->blocks.end()) << ours.name;
    EXPECT_EQ(same->name, ours.name);
    EXPECT_EQ(same->size, ours.size);
    ASSERT_TRUE(complete_block(maps, *same));
    EXPECT_EQ(same->backing, ours.backing);
    EXPECT_EQ(same->inode, ours.inode);
  }
}

/// As if nobody had told: what is plugged in is found, and placed where the monitor says it is.
TEST_P(Recorded, PluggedMemoryIsFound) {
  const auto smaps = [&] { return Result(text_of(home / "smaps")); };
  auto derived = derive_layout(line, maps, smaps);
  ASSERT_TRUE(derived);
  auto plugged = add_plugged(line, smaps, *derived);
  ASSERT_TRUE(plugged) << plugged.error().message;
  EXPECT_EQ(*plugged, GetParam().ends_with("hot-plugged"));
  auto monitor = QmpClient::negotiate(qemu.take_client());
  ASSERT_TRUE(monitor);
  auto told = ask_layout(*monitor, line);
  ASSERT_TRUE(told);
  EXPECT_EQ(derived->blocks.size(), told->blocks.size());
  const RamRange& ours = derived->ram.ranges().back();
  const RamRange& theirs = told->ranges.back();
  EXPECT_EQ(ours.end(), theirs.end());
  EXPECT_EQ(ours.host + ours.size, theirs.host + theirs.size);
}

TEST_P(Recorded, RegistersAndState) {
  auto monitor = QmpClient::negotiate(qemu.take_client());
  ASSERT_TRUE(monitor);
  auto registers = ask_registers(*monitor);
  ASSERT_TRUE(registers) << registers.error().message;
  EXPECT_EQ(registers->size(), line.vcpus);
  EXPECT_EQ(registers->front().rip, 0xfff0u);  // none has run
  EXPECT_EQ(ask_run_state(*monitor).value(), "prelaunch");
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(Qemu, Recorded, testing::ValuesIn(all_cases()), test_name);

TEST(Libvirt, ADomainsCommandLineAndStatus) {
  // libvirt 9.0, qemu:///system: <source type='memfd'/>, <access mode='shared'/>, 5 GiB.
  auto line = parse_command_line(lines_of(recordings / "libvirt-9.0.arguments"));
  ASSERT_TRUE(line) << line.error().message;
  EXPECT_TRUE(line->libvirt);
  EXPECT_EQ(line->name, "lv-memfd");
  EXPECT_EQ(line->machine, "pc-q35-7.2");
  EXPECT_EQ(line->memory_bytes, 5120ull << 20);
  EXPECT_EQ(line->vcpus, 2u);
  EXPECT_TRUE(line->qmp_sockets.empty());
  ASSERT_EQ(line->main_memory.size(), 1u);
  EXPECT_EQ(line->main_memory[0].kind, BackendKind::memfd);
  EXPECT_TRUE(line->main_memory[0].share);
  EXPECT_EQ(parse_libvirt_status(text_of(recordings / "libvirt-9.0.status.xml")), 5143u);
  VmInfo info{.libvirt = true};
  auto monitor = connect_monitor(info);
  ASSERT_FALSE(monitor);
  EXPECT_EQ(monitor.error().code, ErrorCode::unsupported);
}

TEST(LiveRegisters, AreThoseOfTheRecording) {
  // Of a running Debian 6.1 guest: one vCPU in the kernel, one halted.
  auto all = parse_registers(text_of(recordings / "registers-live.txt"));
  ASSERT_TRUE(all) << all.error().message;
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[0].rip, 0xffffffff869c2e70u);
  EXPECT_EQ((*all)[0].cr3, 0x1bad96000u);
  EXPECT_EQ((*all)[0].cr4, 0x751eb0u);
  EXPECT_EQ((*all)[0].gs_base, 0xff3d41c23ac00000u);
  EXPECT_FALSE((*all)[0].halted);
  EXPECT_EQ((*all)[1].index, 1u);
  EXPECT_EQ((*all)[1].cpl, 0u);
  EXPECT_TRUE((*all)[1].halted);
}

TEST(LiveFlatView, JoinsWhatTheFirmwareCut) {
  // Of a running guest the BIOS area is RAM, in pieces of several rights.
  auto flat = parse_flat_view(text_of(recordings / "mtree-live.txt"));
  ASSERT_TRUE(flat) << flat.error().message;
  test::FakeQmp qemu(
      {{"greeting", {{"QMP", nlohmann::json::object()}}},
       {"answers",
        {{"query-memory-devices", {{"return", nlohmann::json::array()}}},
         {"info mtree -f", {{"return", text_of(recordings / "mtree-live.txt")}}},
         {"gpa2hva 0x0",
          {{"return", "Host virtual address for 0x0 (ram) is 0x7f69c7fff000\r\n"}}}}}});
  auto monitor = QmpClient::negotiate(qemu.take_client());
  ASSERT_TRUE(monitor);
  CommandLine line;
  line.main_memory.push_back({.id = "ram"});
  auto told = ask_layout(*monitor, line);
  ASSERT_TRUE(told) << told.error().message;
  ASSERT_EQ(told->ranges.size(), 2u);
  EXPECT_EQ(told->ranges[0].start, GuestPhys(0));
  EXPECT_EQ(told->ranges[0].size, 0x80000000u);
  EXPECT_EQ(told->ranges[1].start, GuestPhys(0x100000000));
  EXPECT_EQ(told->ranges[1].host, HostVirt(0x7f69c7fff000 + 0x80000000));
  EXPECT_EQ(told->blocks.at(0).size, 0x140000000u);
}

}  // namespace
}  // namespace vmsight::qemu_layout_replay
