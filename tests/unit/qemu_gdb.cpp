#include <gtest/gtest.h>

#include <sys/socket.h>
#include <array>

#include "qemu/gdb_client.h"

namespace vmsight::qemu_gdb_test {
namespace {

using namespace std::chrono_literals;

std::optional<std::string> only_packet(std::string_view stream) {
  GdbPackets packets;
  packets.add(stream);
  auto packet = packets.next();
  return packet ? *packet : std::nullopt;
}

TEST(GdbText, FramesPackets) {
  EXPECT_EQ(gdb_packet("D;1"), "$D;1#b0");
  EXPECT_EQ(gdb_packet(""), "$#00");
}

TEST(GdbText, FindsPacketsInPieces) {
  GdbPackets packets;
  std::vector<std::string> found;
  for (const char c : "+$OK#9a+" + gdb_packet("0123")) {
    packets.add(std::string_view(&c, 1));
    auto packet = packets.next();
    ASSERT_TRUE(packet) << packet.error().message;
    if (*packet) found.push_back(**packet);
  }
  EXPECT_EQ(found, (std::vector<std::string>{"OK", "0123"}));
}

TEST(GdbText, SkipsAcknowledgementsAndNotifications) {
  GdbPackets packets;
  std::string notification = gdb_packet("Stop:T02");
  notification.front() = '%';
  packets.add("++" + notification + gdb_packet("E22") + gdb_packet("") + "$half");
  EXPECT_EQ(packets.next().value(), "E22");
  EXPECT_EQ(packets.next().value(), "");
  EXPECT_EQ(packets.next().value(), std::nullopt);
}

TEST(GdbText, ResolvesEscapesAndRepeats) {
  EXPECT_EQ(only_packet(gdb_packet("0* ")), "0000");
  EXPECT_EQ(only_packet("$}\x03#80"), "#");
}

TEST(GdbText, RefusesBadStreams) {
  for (const std::string& stream : {std::string("$OK#00"), std::string("$OK#zz"),
                                    gdb_packet("0*\x01"), "$" + std::string(2 << 20, 'x')}) {
    GdbPackets packets;
    packets.add(stream);
    EXPECT_FALSE(packets.next()) << stream.substr(0, 10);
  }
}

TEST(GdbText, KnowsPacketSizes) {
  // QEMU 7.2 and 11.1.
  EXPECT_EQ(parse_packet_size("PacketSize=1000;qXfer:features:read+;vContSupported+"), 0x1000u);
  EXPECT_EQ(parse_packet_size("PacketSize=20020;qXfer:features:read+"), 0x20020u);
  EXPECT_EQ(parse_packet_size(""), std::nullopt);
  EXPECT_EQ(parse_packet_size("PacketSize=;x"), std::nullopt);
}

TEST(GdbText, ReadsMemory) {
  std::array<std::byte, 4> bytes{};
  ASSERT_TRUE(parse_memory("00ff7Fa0", bytes));
  EXPECT_EQ(bytes, (std::array{std::byte{0}, std::byte{0xff}, std::byte{0x7f}, std::byte{0xa0}}));
  EXPECT_EQ(parse_memory("E14", bytes).error().code, ErrorCode::fault);
  for (const char* bad : {"", "00ff7fa", "00ff7fa0a0", "00ff7fzz", "OK"}) {
    EXPECT_EQ(parse_memory(bad, bytes).error().code, ErrorCode::bad_data) << bad;
  }
}

/// What the stub is going to say is in the socket before we ask.
Result<GdbClient> client_of(std::string_view said, UniqueFd& stub) {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  stub = UniqueFd(ends[1]);
  EXPECT_EQ(::send(ends[1], said.data(), said.size(), 0), static_cast<ssize_t>(said.size()));
  return GdbClient::negotiate(UniqueFd(ends[0]), 20ms);
}

const std::string greeting = "+" + gdb_packet("T02thread:01;") +  // as QEMU 7.2 does, unasked
                             "+" + gdb_packet("PacketSize=1000;multiprocess+") + "+" +
                             gdb_packet("OK") + gdb_packet("OK");
// QEMU 7.2 knows no mode without acknowledgements.
const std::string old_greeting = "+" + gdb_packet("PacketSize=1000;multiprocess+") + "+" +
                                 gdb_packet("") + "+" + gdb_packet("OK");

TEST(GdbClient, Negotiates) {
  UniqueFd stub;
  auto client = client_of(
      greeting + gdb_packet("0011") + gdb_packet("E14") + gdb_packet("OK") + gdb_packet("OK"),
      stub);
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_EQ(client->max_memory(), 2048u);
  const std::vector<std::string> questions = {GdbClient::memory_question(GuestPhys(0x1000), 2),
                                              GdbClient::memory_question(GuestPhys(0xfff0), 2)};
  auto answers = client->ask_all(questions, 20ms);
  ASSERT_TRUE(answers) << answers.error().message;
  EXPECT_EQ(*answers, (std::vector<std::string>{"0011", "E14"}));
  EXPECT_TRUE(client->detach(20ms));
  char sent[512];
  const ssize_t got = ::recv(stub.get(), sent, sizeof sent, 0);
  EXPECT_EQ(std::string_view(sent, static_cast<std::size_t>(got)),
            gdb_packet("qSupported:multiprocess+") + gdb_packet("QStartNoAckMode") + "+" +
                gdb_packet("Qqemu.PhyMemMode:1") + gdb_packet("m1000,2") + gdb_packet("mfff0,2") +
                gdb_packet("Qqemu.PhyMemMode:0") + gdb_packet("D;1"));
}

TEST(GdbClient, GoesWithoutTheQuietMode) {
  UniqueFd stub;
  auto client = client_of(old_greeting + "+" + gdb_packet("0011"), stub);
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_EQ(client->ask("m0,2", 20ms).value(), "0011");
  char sent[512];
  const ssize_t got = ::recv(stub.get(), sent, sizeof sent, 0);
  EXPECT_EQ(std::string_view(sent, static_cast<std::size_t>(got)),
            gdb_packet("qSupported:multiprocess+") + gdb_packet("QStartNoAckMode") +
                gdb_packet("Qqemu.PhyMemMode:1") + gdb_packet("m0,2"));
}

TEST(GdbClient, SilenceAndRefusalsAreErrors) {
  UniqueFd stub;
  EXPECT_EQ(client_of("", stub).error().code, ErrorCode::timeout);
  EXPECT_EQ(client_of("+" + gdb_packet(""), stub).error().code, ErrorCode::unsupported);
  EXPECT_EQ(client_of(gdb_packet("PacketSize=1000") + gdb_packet("OK") + gdb_packet(""), stub)
                .error()
                .code,
            ErrorCode::unsupported);
  auto client = client_of(greeting + gdb_packet("E22"), stub);
  ASSERT_TRUE(client);
  EXPECT_FALSE(client->detach(20ms));
  stub.reset();
  EXPECT_EQ(client->ask("?", 20ms).error().code, ErrorCode::os);
}

}  // namespace
}  // namespace vmsight::qemu_gdb_test
