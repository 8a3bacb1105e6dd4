// The text forms of the sample, as the Linux tools would print them.
#include <gtest/gtest.h>

#include "render/format.h"
#include "render/hexdump.h"
#include "render/log.h"
#include "render/lsof_text.h"
#include "render/maps_text.h"
#include "render/mounts_text.h"
#include "render/network.h"
#include "render/ps_text.h"
#include "render/sockets_text.h"
#include "render/stacks.h"
#include "render/summary.h"
#include "render/system.h"
#include "unit/render_sample.h"

namespace vmsight::render_text_test {
namespace {

template <typename Print>
std::string printed(Print print) {
  State state;
  fill_sample(state);
  Output out;
  print(out, state);
  return std::string(out.text());
}

std::string ps(const PsFormat& format) {
  return printed(
      [&](Output& out, const State& state) { EXPECT_TRUE(print_processes(out, state, format)); });
}

TEST(Ps, LooksLikePsMinusEf) {
  EXPECT_EQ(ps({}),
            " UID PID PPID  C STIME  TTY       TIME CMD\n"
            "   0   1    0 62 +00:02 ?     00:01:01 /sbin/init splash\n"
            "   0   2    0  0 +00:02 ?     00:00:00 [kthreadd]\n"
            "1000  42    1  0 +00:02 ttyS0 00:00:00 server --name caf\\xe9\n"
            "   0  50   42  0 +00:02 ?     00:00:00 [child] <defunct>\n");
}

TEST(Ps, TakesColumnsAndOrder) {
  EXPECT_EQ(ps({.columns = {"pid", "rss", "validity", "comm"}, .sort = "-rss,-pid"}),
            "PID RSS VALIDITY COMMAND\n"
            "  1 400 live     init\n"
            " 42   4 live     ser\\x1b[2Jver\n"
            " 50   0 zombie   child <defunct>\n"
            "  2   0 live     kthreadd\n");
}

TEST(Ps, DrawsATree) {
  EXPECT_EQ(ps({.columns = {"pid", "cmd"}, .forest = PsForest::arms}),
            "PID CMD\n"
            "  1 /sbin/init splash\n"
            " 42 server --name caf\\xe9\n"
            " 50  \\_ [child] <defunct>\n"
            "  2 [kthreadd]\n");
  EXPECT_EQ(ps({.columns = {"pid", "cmd"}, .forest = PsForest::spaces}),
            "PID CMD\n"
            "  1 /sbin/init splash\n"
            " 42   server --name caf\\xe9\n"
            " 50     [child] <defunct>\n"
            "  2 [kthreadd]\n");
}

TEST(Ps, ATreeOfForgedParentsHasEachProcessOnce) {
  State state;
  state.processes = {sample_process(5, 6, "a"), sample_process(6, 5, "b"),
                     sample_process(7, 7, "c")};
  Output out;
  ASSERT_TRUE(print_processes(out, state, {.columns = {"pid"}, .forest = PsForest::arms}));
  EXPECT_EQ(std::count(out.text().begin(), out.text().end(), '\n'), 4);
}

TEST(Ps, ShowsThreads) {
  EXPECT_EQ(ps({.columns = {"pid", "tid", "psr", "stat", "comm"},
                .threads = true,
                .table = {.headers = false}}),
            " 1  1 0 S  init\n"
            "42 42 0 Sl server\n"
            "42 43 1 Rl worker\n");
}

TEST(Ps, CutsLinesAtTheTerminal) {
  const std::string text = ps({.table = {.width = 20}});
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    EXPECT_LE(end - at, 20u);
    at = end + 1;
  }
}

TEST(Ps, NamesTheColumnsItKnows) {
  State state;
  Output out;
  const auto done = print_processes(out, state, {.columns = {"nonsense"}});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::usage);
  EXPECT_NE(done.error().hint.find("validity"), std::string::npos);
}

TEST(Lsof, JoinsProcessesFilesMapsAndSockets) {
  EXPECT_EQ(printed([](Output& out, const State& state) { print_open_files(out, state, {}); }),
            "COMMAND       PID USER  FD   TYPE DEVICE SIZE/OFF NODE NAME\n"
            "init            1    0 cwd    DIR                      /\n"
            "init            1    0 rtd    DIR                      /\n"
            "init            1    0 txt    REG                      /sbin/init\n"
            "ser\\x1b[2Jver  42 1000 mem    REG  254,1        0   12 /usr/bin/server\n"
            "ser\\x1b[2Jver  42 1000   0u   CHR    5,1      0t0    5 /dev/null\n"
            "ser\\x1b[2Jver  42 1000   3u  IPv4    900      0t0  TCP *:80 (LISTEN)\n"
            "ser\\x1b[2Jver  42 1000   4w   REG  254,1     4711   77 /tmp/x (deleted)\n");
}

State one_file(const OpenFile& file) {
  State state;
  state.processes = {sample_process(7, 1, "one")};
  state.open_files = {file};
  return state;
}

std::string lsof_row(const OpenFile& file) {
  Output out;
  const State state = one_file(file);
  print_open_files(out, state, {.links = true, .table = {.headers = false}});
  return std::string(out.text());
}

TEST(Lsof, ShowsDevicesLocksAndTargets) {
  EXPECT_EQ(lsof_row({.pid = 7,
                      .fd = 3,
                      .type = "CHR",
                      .path = "/dev/null",
                      .inode = 4,
                      .device = 5,
                      .tid = 7,
                      .rdev = 1 << 20 | 3,
                      .links = 1}),
            "one 7 0 3r  CHR 1,3 0t0 1 4 /dev/null\n");
  EXPECT_EQ(lsof_row({.pid = 7,
                      .fd = 4,
                      .type = "REG",
                      .path = "/a",
                      .flags = 2,
                      .inode = 9,
                      .device = 254 << 20,
                      .size = 5,
                      .tid = 7,
                      .links = 2,
                      .lock = 'W'}),
            "one 7 0 4uW REG 254,0 5 2 9 /a\n");
  EXPECT_EQ(lsof_row({.pid = 7,
                      .fd = 5,
                      .type = "ANON",
                      .path = "anon_inode:[eventpoll]",
                      .flags = 2,
                      .inode = 9,
                      .device = 15,
                      .tid = 7,
                      .targets = {3, 5}}),
            "one 7 0 5u  a_inode 0,15 0  9 [eventpoll:3,5]\n");
  EXPECT_EQ(lsof_row({.pid = 7,
                      .fd = 6,
                      .type = "FIFO",
                      .path = "pipe:[12]",
                      .flags = 1,
                      .inode = 12,
                      .device = 13,
                      .tid = 7}),
            "one 7 0 6w  FIFO 0,13 0t0  12 pipe\n");
}

TEST(Lsof, ShowsTheFilesOfAThreadAsTheThreads) {
  State state = one_file({.pid = 7, .fd = 3, .type = "REG", .path = "/a", .inode = 1, .tid = 7});
  state.open_files.push_back(
      {.pid = 7, .fd = 3, .type = "REG", .path = "/b", .inode = 2, .tid = 8});
  state.threads = {{.pid = 7, .tgid = 7, .comm = "one", .files_of = 7},
                   {.pid = 8, .tgid = 7, .comm = "two", .files_of = 8}};
  Output out;
  print_open_files(out, state, {.table = {.headers = false}});
  EXPECT_EQ(std::string(out.text()),
            "one 7       0 3r  REG 0,0 0 1 /a\n"
            "one 7 8 two 0 3r  REG 0,0 0 2 /b\n");
}

TEST(Ss, HasOneRowASocketWithAllItsOwners) {
  EXPECT_EQ(printed([](Output& out, const State& state) {
              print_sockets(out, state, {.processes = true});
            }),
            "Netid State     Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n"
            "tcp   LISTEN    0      0      0.0.0.0:80         0.0.0.0:*"
            "         users:((\"ser\\x1b[2Jver\",pid=42,fd=3),(\"child\",pid=50,fd=3))\n"
            "tcp   TIME-WAIT 0      0      [fe80::1]:80       [fe80::2]:4000\n"
            "u_dgr ESTAB     0      0      /run/log 901       * 902"
            "             users:((\"ser\\x1b[2Jver\",pid=42,fd=9))\n");
}

TEST(Ss, TellsWhatAnAddressIsOf) {
  Socket socket{.family = "inet6", .protocol = "tcp", .local = "::", .remote = "::"};
  EXPECT_EQ(endpoint(socket, Side::local), "*:*");
  socket.v6only = true;
  socket.local_port = 22;
  EXPECT_EQ(endpoint(socket, Side::local), "[::]:22");
  socket.local = "fe80::1";
  socket.ifindex = 3;
  EXPECT_EQ(endpoint(socket, Side::local), "[fe80::1]%if3:22");
  socket.device = "eth0";
  EXPECT_EQ(endpoint(socket, Side::local), "[fe80::1]%eth0:22");
  EXPECT_EQ(endpoint(socket, Side::remote), "[::]:*");
  Socket packets{.family = "packet", .protocol = "packet"};
  packets.protocol_number = 0x0806;
  EXPECT_EQ(endpoint(packets, Side::local), "arp:*");
  packets.ifindex = 3;
  packets.device = "eth0";
  packets.protocol_number = 3;
  EXPECT_EQ(endpoint(packets, Side::local), "*:eth0");
}

TEST(Pmap, ShowsMapsAndTheirTotal) {
  const std::string text = printed([](Output& out, State& state) {
    std::erase_if(state.processes, [](const Process& p) { return p.pid != 42; });
    print_memory_maps(out, state, {});
  });
  EXPECT_EQ(text,
            "42:   server --name caf\\xe9\n"
            "0000000000400000      8K r-x-- server\n"
            "00007f0000000000      4K rw-s-   [ anon ]\n"
            " total               12K\n");
}

TEST(Ip, ShowsDevices) {
  EXPECT_EQ(printed([](Output& out, const State& state) {
              print_net_devices(out, state, {.statistics = true});
            }),
            "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default "
            "qlen 1000\n"
            "    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n"
            "    inet 127.0.0.1/8 scope host lo\n"
            "       valid_lft forever preferred_lft forever\n"
            "    inet6 ::1/128 scope host tentative dynamic \n"
            "       valid_lft 7sec preferred_lft 0sec\n"
            "    RX:        bytes    packets\n"
            "                  10          1\n"
            "    TX:        bytes    packets\n"
            "                  10          1\n");
  EXPECT_EQ(printed([](Output& out, const State& state) {
              print_net_devices(out, state, {.brief = true});
            }),
            "lo UNKNOWN 127.0.0.1/8 ::1/128\n");
}

TEST(Pmap, TotalsAreTheSumsOfTheColumns) {
  const std::string text = printed([](Output& out, State& state) {
    std::erase_if(state.processes, [](const Process& p) { return p.pid != 42; });
    state.processes[0].rss_bytes = 77 << 10;  // what the kernel counts may be another moment's
    for (MemoryMap& map : state.memory_maps) map.rss_bytes = map.dirty_bytes = 4096;
    print_memory_maps(out, state, {.residency = true});
  });
  EXPECT_NE(text.find("\ntotal kB              12       8       8\n"), std::string::npos) << text;
}

TEST(Ps, TellsTimesByTheGuestsClockAndDay) {
  State state;
  state.processes = {sample_process(7, 1, "one")};
  state.os.uptime_s = 86400;
  state.os.boot_unix_ns = 1'000'000'000'000'000'000;  // 2001-09-09, on whatever day this runs
  const auto stime = [&](std::uint64_t start_s, std::uint64_t now_s) {
    state.processes[0].start_time_ns = start_s * 1'000'000'000;
    state.os.unix_ns = *state.os.boot_unix_ns + static_cast<std::int64_t>(now_s) * 1'000'000'000;
    Output out;
    EXPECT_TRUE(print_processes(out, state, {.columns = {"stime"}, .table = {.headers = false}}));
    return std::string(out.text());
  };
  EXPECT_EQ(stime(0, 60).size(), 6u);                    // a time of day: "01:46"
  EXPECT_EQ(stime(0, 3 * 86400), stime(60, 3 * 86400));  // a day: "Sep09"
  EXPECT_EQ(stime(0, 3 * 86400).substr(0, 3), "Sep");
  EXPECT_EQ(stime(0, 400 * 86400ull), "2001\n");
}

TEST(Ps, RenamesHeadersAndLeavesThemOut) {
  EXPECT_EQ(ps({.columns = {"pid=NUMBER", "comm="}}).substr(0, 7), "NUMBER\n");
  EXPECT_EQ(ps({.columns = {"pid="}}), " 1\n 2\n42\n50\n");
}

TEST(Ip, NamesWhatADeviceWorksOn) {
  NetDevice below{.name = "eth0", .ifindex = 2}, vlan = below, end = below, tunnel = below;
  vlan.name = "v";
  vlan.flags = {"UP"};
  vlan.ifindex = 3;
  vlan.link_index = 2;
  vlan.link = "eth0";
  vlan.link_type = "ether";
  vlan.operstate = "UP";
  vlan.master_index = 9;
  vlan.master = "br0";
  end.name = "veth0";
  end.ifindex = 4;
  end.link_index = 7;
  end.link_netns = 1;
  end.link_netnsid = 0;
  end.link_type = "ether";
  end.operstate = "DOWN";
  tunnel.name = "tunl0";
  tunnel.ifindex = 5;
  tunnel.link_index = 0;
  tunnel.link_type = "ipip";
  tunnel.hwaddr = "0a:00:02:0f";
  tunnel.broadcast = "0a:00:02:02";
  tunnel.flags = {"POINTOPOINT"};
  tunnel.operstate = "UNKNOWN";
  State state;
  state.net_devices = {vlan, end, tunnel};
  Output out;
  print_net_devices(out, state, {.addresses = false, .one_line = true});
  EXPECT_EQ(out.text(),
            "3: v@eth0: <UP> mtu 0 master br0 state UP mode  group default\\    link/ether\n"
            "4: veth0@if7: <> mtu 0 state DOWN mode  group default\\    link/ether link-netnsid 0\n"
            "5: tunl0@NONE: <POINTOPOINT> mtu 0 state UNKNOWN mode  group default"
            "\\    link/ipip 10.0.2.15 peer 10.0.2.2\n");
}

TEST(Lsmod, LooksLikeLsmod) {
  EXPECT_EQ(printed([](Output& out, const State& state) { print_modules(out, state, {}); }),
            "Module      Size Used by\n"
            "virtio_net 61440 0\n"
            "failover   16384 1 net_failover\n");
}

TEST(Lscpu, SaysWhichCpusAreOnline) {
  const std::string text =
      printed([](Output& out, const State& state) { print_cpu_summary(out, state, true); });
  EXPECT_NE(text.find("CPU(s):                  2\n"), std::string::npos);
  EXPECT_NE(text.find("On-line CPU(s) list:   0\n"), std::string::npos);
  EXPECT_NE(text.find("Off-line CPU(s) list:  1\n"), std::string::npos);
}

TEST(Uname, PrintsTheFieldsAskedFor) {
  const auto uname = [](UnameFormat format) {
    return printed([&](Output& out, const State& state) { print_uname(out, state.os, format); });
  };
  EXPECT_EQ(uname({}), "Linux\n");
  EXPECT_EQ(uname({.release = true}), "6.1.0-1-amd64\n");
  EXPECT_EQ(uname({true, true, true, true, true, true}),
            "Linux vm 6.1.0-1-amd64 #1 SMP x86_64 GNU/Linux\n");
}

TEST(Dmesg, KeepsLinesOfARecordTogether) {
  EXPECT_EQ(printed([](Output& out, const State& state) { print_log(out, state.kernel_log, {}); }),
            "[    0.000000] Linux version 6.1\n"
            "[   12.345678] oops\n"
            "               second line\\x1b[0m\n");
  EXPECT_EQ(printed([](Output& out, const State& state) {
              print_log(out, state.kernel_log, {.decode = true, .timestamps = false});
            }),
            "kern  :notice: Linux version 6.1\n"
            "kern  :err   : oops\n"
            "               second line\\x1b[0m\n");
}

TEST(Dmesg, KeepsTabsAndTellsTimesAsAsked) {
  const std::vector<LogRecord> log = {
      {.time_ns = 1'500'000'000, .level = 6, .text = "a\tb"},
      {.time_ns = 3'750'000'000, .level = 4, .facility = 1, .text = "c\nd"}};
  const auto text = [&](const LogFormat& format) {
    Output out;
    print_log(out, log, format);
    return std::string(out.text());
  };
  EXPECT_EQ(text({}), "[    1.500000] a\tb\n[    3.750000] c\n               d\n");
  EXPECT_EQ(text({.delta = true}),
            "[    1.500000 <    0.000000>] a\tb\n[    3.750000 <    2.250000>] c\n"
            "                              d\n");
  EXPECT_EQ(text({.raw = true, .prefix_each = true}),
            "<6>[    1.500000] a\tb\n<12>[    3.750000] c\n<12>[    3.750000] d\n");
  EXPECT_NE(text({.relative = true, .boot_unix_ns = 0}).find("[  +2.250000] c"), std::string::npos);
}

TEST(Findmnt, DrawsTheTreeOfMounts) {
  EXPECT_EQ(printed([](Output& out, const State& state) {
              print_mounts(out, state, {.layout = MountLayout::list});
            }),
            "TARGET   SOURCE          FSTYPE OPTIONS\n"
            "/        /dev/vda1       ext4   rw,errors=remount-ro\n"
            "/proc    proc            proc   rw,nosuid\n"
            "/srv/www /dev/vda1[/www] ext4   ro,errors=remount-ro\n");
  const std::string tree = printed([](Output& out, const State& state) {
    print_mounts(out, state, {.table = {.headers = false}});
  });
  EXPECT_NE(tree.find("├─/proc"), std::string::npos);
  EXPECT_NE(tree.find("└─/srv/www"), std::string::npos);
}

TEST(Findmnt, HasOneWordAColumnIfItIsRaw) {
  Mount mount{.source = "with blank", .target = "/a\\b", .fstype = "tmpfs", .options = "rw"};
  mount.super_options = "ro,size=1k";
  mount.propagation = "private,slave,unbindable";
  mount.master_group = 4;
  State state;
  state.mounts = {mount};
  Output out;
  const std::vector<MountColumn> columns = {MountColumn::source, MountColumn::target,
                                            MountColumn::options, MountColumn::opt_fields};
  print_mounts(out, state, {.layout = MountLayout::raw, .columns = columns});
  EXPECT_EQ(out.text(),
            "SOURCE TARGET OPTIONS OPT-FIELDS\n"
            "with\\x20blank /a\\x5cb ro,size=1k master:4\\x20unbindable\n");
}

TEST(Findmnt, ForgedParentsDoNotHang) {
  State state;
  state.mounts = {{.target = "/a", .id = 1, .parent = 2}, {.target = "/b", .id = 2, .parent = 1}};
  Output out;
  print_mounts(out, state, {.table = {.headers = false}});
  EXPECT_EQ(std::count(out.text().begin(), out.text().end(), '\n'), 2);
}

TEST(Stacks, LookLikeProcPidStack) {
  Output out;
  const TaskStack stack{.pid = 7,
                        .tgid = 7,
                        .comm = "cat",
                        .state = 'S',
                        .frames = {{.address = GuestVirt(0xffffffff81000010),
                                    .symbol = "vfs_read",
                                    .module = "",
                                    .offset = 0x10,
                                    .size = 0x80},
                                   {.address = GuestVirt(0xffffffffc0000010),
                                    .symbol = "f",
                                    .module = "ext4",
                                    .offset = 1,
                                    .size = 2,
                                    .reliable = false}}};
  print_stacks(out, {stack}, true);
  EXPECT_EQ(out.text(),
            "7 cat (S)\n"
            "  [<0>] vfs_read+0x10/0x80\n"
            "  [<0>] ? f+0x1/0x2 [ext4]\n");
}

TEST(Summary, SaysHowMuchThereIsAndWhatIsMissing) {
  const std::string text =
      printed([](Output& out, const State& state) { print_summary(out, sample_vm(), state); });
  EXPECT_NE(text.find("web1 (pid 4711), kvm, q35, 2 vCPUs, 512 MiB"), std::string::npos);
  EXPECT_NE(text.find("processes    4: 1 kernel, 3 user; 5 threads"), std::string::npos);
  EXPECT_NE(text.find("cwd: gva:0x10 is not mapped"), std::string::npos);
}

TEST(HexDump, FoldsEqualLines) {
  Output out;
  HexDump dump(out, 0x1000);
  std::vector<std::byte> bytes(64, std::byte{0});
  bytes[0] = std::byte{'A'};
  bytes[63] = std::byte{0x1b};
  dump.add(bytes);
  dump.finish();
  EXPECT_EQ(
      out.text(),
      "0000000000001000  41 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |A...............|\n"
      "0000000000001010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
      "*\n"
      "0000000000001030  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 1b  |................|\n"
      "0000000000001040\n");
}

TEST(Format, PrintsSmallValues) {
  EXPECT_EQ(byte_size(512ull << 20), "512 MiB");
  EXPECT_EQ(byte_size(1536), "1.5 KiB");
  EXPECT_EQ(byte_size(0), "0 B");
  EXPECT_EQ(cpu_time(93784'000'000'000), "1-02:03:04");
  EXPECT_EQ(elapsed_time(62'000'000'000), "01:02");
  EXPECT_EQ(terminal_name(0), "?");
  EXPECT_EQ(terminal_name(136 << 8 | 3), "pts/3");
  EXPECT_EQ(terminal_name(5 << 8 | 1), "console");
  EXPECT_EQ(device_name(254ull << 20 | 1), "254:1");
}

}  // namespace
}  // namespace vmsight::render_text_test
