// Pure functions: numbers as words, addresses as text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "state/guest_os.h"
#include "state/net_address.h"
#include "state/net_devices.h"
#include "state/socket_names.h"

namespace vmsight::state_names_test {
namespace {

using ::testing::ElementsAre;

TEST(NetAddress, Ipv4) {
  Arena arena;
  EXPECT_EQ(format_address(arena, Ipv4Bytes{10, 0, 2, 15}), "10.0.2.15");
  EXPECT_EQ(format_address(arena, Ipv4Bytes{}), "0.0.0.0");
  EXPECT_EQ(format_address(arena, Ipv4Bytes{127, 0, 0, 1}), "127.0.0.1");
  EXPECT_EQ(format_prefix(arena, Ipv4Bytes{255, 255, 255, 255}, 32), "255.255.255.255/32");
}

TEST(NetAddress, Ipv6) {
  Arena arena;
  const Ipv6Bytes link{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56};
  EXPECT_EQ(format_address(arena, link), "fe80::5054:ff:fe12:3456");
  EXPECT_EQ(format_address(arena, Ipv6Bytes{}), "::");
  Ipv6Bytes mapped{};
  mapped[10] = mapped[11] = 0xff;
  mapped[12] = 127;
  mapped[15] = 1;
  EXPECT_EQ(format_address(arena, mapped), "::ffff:127.0.0.1");
  EXPECT_EQ(format_prefix(arena, link, 64), "fe80::5054:ff:fe12:3456/64");
}

TEST(NetAddress, LongestTextFits) {
  Arena arena;
  Ipv6Bytes all;
  all.fill(0xff);
  EXPECT_EQ(format_prefix(arena, all, 255), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/255");
}

TEST(NetAddress, Hardware) {
  Arena arena;
  const std::array<std::byte, 3> bytes{std::byte{0x52}, std::byte{0}, std::byte{0xff}};
  EXPECT_EQ(format_hardware_address(arena, bytes), "52:00:ff");
  EXPECT_EQ(format_hardware_address(arena, {}), "");
  EXPECT_NE(format_hardware_address(arena, {}).data(), nullptr);
}

TEST(NetAddress, FlagsInTheWordsOfIp) {
  EXPECT_THAT(address_flags(0x80, false), ElementsAre());
  EXPECT_THAT(address_flags(0x01, false), ElementsAre("secondary", "dynamic"));
  EXPECT_THAT(address_flags(0x81 | 0x40 | 0x08, true),
              ElementsAre("temporary", "dadfailed", "tentative"));
  EXPECT_THAT(address_flags(0x20 | 0x100 | 0x200, true),
              ElementsAre("deprecated", "dynamic", "mngtmpaddr", "noprefixroute"));
  EXPECT_EQ(address_scope(253), "link");
  EXPECT_EQ(address_scope(7), "");
}

TEST(NetLinks, Words) {
  EXPECT_EQ(link_type_name(1), "ether");
  EXPECT_EQ(link_type_name(776), "sit");
  EXPECT_EQ(link_type_name(65534), "none");
  EXPECT_EQ(link_type_name(9999), "");
  EXPECT_EQ(operstate_name(6), "UP");
  EXPECT_EQ(operstate_name(7), "UNKNOWN");
}

TEST(SocketNames, Words) {
  EXPECT_EQ(socket_family_name(10), "inet6");
  EXPECT_EQ(socket_family_name(40), "vsock");
  EXPECT_EQ(socket_family_name(4000), "");
  EXPECT_EQ(socket_type_name(5), "seqpacket");
  EXPECT_EQ(socket_type_name(7), "");
  EXPECT_EQ(inet_protocol_name(1, 6), "tcp");
  EXPECT_EQ(inet_protocol_name(3, 1), "raw");
  EXPECT_EQ(inet_protocol_name(2, 58), "icmp");
  EXPECT_EQ(inet_protocol_name(2, 250), "");
  EXPECT_EQ(tcp_state_name(1), "ESTABLISHED");
  EXPECT_EQ(tcp_state_name(10), "LISTEN");
  EXPECT_EQ(tcp_state_name(200), "UNKNOWN");
  EXPECT_EQ(plain_state_name(7), "UNCONN");
  EXPECT_EQ(plain_state_name(1), "ESTABLISHED");
}

TEST(LinkFlags, LoopbackThatIsUp) {
  LinkState link;
  link.flags = 0x1 | 0x8;  // UP, LOOPBACK
  link.state = 1 | 2;      // started, present
  EXPECT_THAT(link_flags(link), ElementsAre("LOOPBACK", "UP", "LOWER_UP"));
}

TEST(LinkFlags, CableIsOut) {
  LinkState link;
  link.flags = 0x1 | 0x2 | 0x1000;  // UP, BROADCAST, MULTICAST
  link.state = 1 | 2 | 4;           // no carrier
  link.operstate = 2;               // down
  EXPECT_THAT(link_flags(link), ElementsAre("NO-CARRIER", "BROADCAST", "MULTICAST", "UP"));
}

TEST(LinkFlags, DownDeviceShowsNoCarrierState) {
  LinkState link;
  link.flags = 0x2 | 0x1000 | 0x100;  // PROMISC in flags is the kernel's own count, not shown
  link.state = 2;
  EXPECT_THAT(link_flags(link), ElementsAre("BROADCAST", "MULTICAST"));
  link.global = 0x100;
  EXPECT_THAT(link_flags(link), ElementsAre("BROADCAST", "MULTICAST", "PROMISC"));
}

TEST(BootTime, AddsWhatTheClockCounted) {
  EXPECT_EQ(boot_time_ns(5'000'000'000, 512 << 8, 8, 7), 5'000'000'519U);
  EXPECT_EQ(boot_time_ns(1, 1, 200, 1), 2U);  // a forged shift
}

}  // namespace
}  // namespace vmsight::state_names_test
