// The relay between a monitor and the owner of a guard.
#include "guard/qmp_relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <thread>

namespace vmsight::guard_qmp_relay_test {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

std::pair<UniqueFd, UniqueFd> stream_pair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::string read_all(const UniqueFd& fd) {
  std::string text(1 << 16, '\0');
  const ssize_t got = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

void write(const UniqueFd& fd, std::string_view text) {
  EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

struct Relayed {
  Relayed() {
    auto [qemu, qemu_side] = stream_pair();
    auto [owner, owner_side] = stream_pair();
    this->qemu = std::move(qemu);
    this->owner = std::move(owner);
    relay.emplace(std::move(qemu_side), std::move(owner_side));
    relay->set(
        [this](std::string_view name) { events.emplace_back(name); },
        [](const json& command) { return command.value("execute", json()) == "query-status"; });
  }
  UniqueFd qemu, owner;
  std::optional<QmpRelay> relay;
  std::vector<std::string> events;
};

TEST(QmpRelay, PassesWholeLinesOnly) {
  Relayed all;
  write(all.owner, R"({"execute": "query-st)");
  ASSERT_TRUE(all.relay->pump());
  EXPECT_EQ(read_all(all.qemu), "") << "half a command would spoil the guard's";
  write(all.owner, "atus\"}\n{\"exec");
  ASSERT_TRUE(all.relay->pump());
  EXPECT_EQ(read_all(all.qemu), "{\"execute\": \"query-status\"}\n");
  write(all.qemu, "{\"return\": {}}\n{\"ret");
  ASSERT_TRUE(all.relay->pump());
  EXPECT_EQ(read_all(all.owner), "{\"return\": {}}\n");
}

TEST(QmpRelay, CutsOffAnOwnerThatGivesOtherCommands) {
  for (const char* line : {"{\"execute\": \"quit\"}\n", "[]\n", "{\n", "{\"execute\": 1}\n"}) {
    Relayed all;
    write(all.owner, line);
    ASSERT_TRUE(all.relay->pump());
    EXPECT_EQ(read_all(all.qemu), "") << line;
    char byte = 0;
    EXPECT_EQ(::recv(all.owner.get(), &byte, 1, 0), 0) << line;
  }
}

TEST(QmpRelay, AnswersOfTheGuardAreNotTheOwners) {
  Relayed all;
  std::thread qemu([&] {
    std::string asked;
    while (asked.find('\n') == asked.npos) asked += read_all(all.qemu);
    write(all.qemu, "{\"timestamp\": {}, \"event\": \"STOP\"}\n");
    write(all.qemu, "{\"return\": \"guard-1\", \"id\": 7}\n");  // one that only looks like it
    write(all.qemu, "{\"return\": 5, \"id\": \"guard-1\"}\n");
  });
  const auto answer = all.relay->execute({"query-status"}, 5s);
  qemu.join();
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(*answer, 5);
  EXPECT_EQ(all.events, std::vector<std::string>{"STOP"});
  const std::string told = read_all(all.owner);
  EXPECT_NE(told.find("STOP"), told.npos);
  EXPECT_NE(told.find("\"id\": 7"), told.npos);
  EXPECT_EQ(told.find("\"return\": 5"), told.npos);
}

TEST(QmpRelay, SaysThatQemuIsGone) {
  Relayed all;
  all.qemu.reset();
  EXPECT_FALSE(all.relay->pump());
  EXPECT_FALSE(all.relay->execute({"query-status"}, 1s));
}

TEST(QmpRelay, TakesTheConnectionFromAnOwnerInTheMidstOfACommand) {
  Relayed all;
  write(all.owner, "{\"execute\": \"query-status\"}\n{\"execute\": \"query-");
  ASSERT_TRUE(all.relay->pump());
  write(all.qemu, "{\"return\": {\"status\": \"running\"}, \"id\": 1}\n");
  auto client = all.relay->take();
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_EQ(read_all(all.qemu), "{\"execute\": \"query-status\"}\n");
  std::thread qemu([&] {
    std::string asked;
    while (asked.find('\n') == asked.npos) asked += read_all(all.qemu);
    const json id = json::parse(asked)["id"];
    write(all.qemu, json{{"return", 3}, {"id", id}}.dump() + "\n");
  });
  const auto answer = client->execute({"cont"});
  qemu.join();
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(*answer, 3) << "not the answer to the owner's command";
}

}  // namespace
}  // namespace vmsight::guard_qmp_relay_test
