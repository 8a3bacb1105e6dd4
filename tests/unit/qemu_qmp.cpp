#include "qemu/qmp.h"

#include <gtest/gtest.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <cstring>
#include <filesystem>
#include <thread>

#include "replay/fake_qmp.h"

namespace vmsight::qemu_qmp_test {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

json recording(json answers) {
  return {{"greeting", {{"QMP", {{"version", {}}, {"capabilities", json::array()}}}}},
          {"answers", std::move(answers)}};
}

/// Both ends of a socket; what the other end is to say is in it before we listen.
struct Pair {
  UniqueFd ours, theirs;
  explicit Pair(std::string_view said) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    ours = UniqueFd(ends[0]);
    theirs = UniqueFd(ends[1]);
    EXPECT_EQ(::send(ends[1], said.data(), said.size(), 0), static_cast<ssize_t>(said.size()));
  }
};

TEST(QmpClient, AsksSeveralAtOnce) {
  test::FakeQmp qemu(recording({{"query-status", {{"return", {{"status", "running"}}}}},
                                {"info version", {{"return", "7.2\r\n"}}}}));
  auto client = QmpClient::negotiate(qemu.take_client());
  ASSERT_TRUE(client) << client.error().message;
  const std::vector<QmpClient::Command> commands = {{"query-status"},
                                                    QmpClient::human("info version")};
  auto answers = client->execute_all(commands);
  ASSERT_TRUE(answers) << answers.error().message;
  EXPECT_EQ((*answers)[0]["status"], "running");
  EXPECT_EQ(human_text((*answers)[1]).value(), "7.2\n");
}

TEST(QmpClient, ARefusalHasQemusWords) {
  test::FakeQmp qemu(recording(json::object()));
  auto client = QmpClient::negotiate(qemu.take_client());
  ASSERT_TRUE(client);
  auto answer = client->execute({"query-unknown"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::unsupported);
  EXPECT_EQ(answer.error().message, "QMP query-unknown: not recorded");
}

TEST(QmpClient, NoGreetingMeansAnotherClient) {
  Pair pair("");
  auto client = QmpClient::negotiate(std::move(pair.ours), 20ms);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ErrorCode::timeout);
  EXPECT_NE(client.error().message.find("held by another client"), std::string::npos);
  EXPECT_FALSE(client.error().hint.empty());
}

TEST(QmpClient, SilenceEndsInTime) {
  Pair pair("{\"QMP\": {}}\r\n{\"event\": \"STOP\"}\r\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  auto answer = client->execute({"query-status"}, 20ms);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::timeout);
}

TEST(QmpClient, KeepsEventsForWhoWaits) {
  Pair pair(R"({"QMP": {}})"
            "\n"
            R"({"event": "STOP", "timestamp": {"seconds": 2, "microseconds": 5}})"
            "\n"
            R"({"id": 2, "return": {}})"
            "\n"
            R"({"event": "RESUME", "timestamp": {"seconds": 3, "microseconds": 1}})"
            "\n"
            R"({"event": 7})"
            "\n"
            R"({"event": "MIGRATION", "data": {"status": "completed"}})"
            "\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  ASSERT_TRUE(client->execute({"cont"}, 20ms));
  const auto events = client->take_events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].name, "STOP");
  EXPECT_EQ(events[0].time_us, 2'000'005u);
  const auto event = client->wait_event("MIGRATION", 20ms);
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_EQ(event->data["status"], "completed");
  EXPECT_FALSE(client->wait_event("MIGRATION", 20ms));
  ASSERT_EQ(client->take_events().size(), 1u);  // RESUME
}

TEST(QmpClient, EventsDoNotPileUp) {
  std::string said = R"({"QMP": {}})"
                     "\n";
  for (int i = 0; i < 1000; ++i)
    said += R"({"event": "E"})"
            "\n";
  Pair pair(said + R"({"id": 2, "return": {}})"
                   "\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  ASSERT_TRUE(client->execute({"cont"}));
  EXPECT_EQ(client->take_events().size(), 256u);
}

TEST(QmpClient, CountsResetsThatAreThereToRead) {
  Pair pair(R"({"QMP": {}})"
            "\n"
            R"({"event": "RESET", "data": {"guest": true}})"
            "\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  EXPECT_EQ(client->resets().value(), 1u);
  EXPECT_EQ(client->resets().value(), 1u);
  constexpr std::string_view again = R"({"event": "RESET"})"
                                     "\n"
                                     R"({"id": 2, "return": {}})"
                                     "\n";
  ASSERT_EQ(::send(pair.theirs.get(), again.data(), again.size(), 0),
            static_cast<ssize_t>(again.size()));
  ASSERT_TRUE(client->execute({"cont"}, 20ms));
  EXPECT_TRUE(client->wait_event("RESET", 20ms));  // who takes it leaves it counted
  EXPECT_EQ(client->resets().value(), 2u);
}

TEST(QmpClient, OneThatNeverStopsTalkingIsATimeout) {
  Pair pair(R"({"QMP": {}})"
            "\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  std::thread talker([end = pair.theirs.get()] {
    std::string said;
    while (said.size() < 32768) said += "{}\n";
    while (::send(end, said.data(), said.size(), MSG_NOSIGNAL) > 0) continue;
  });
  const auto answer = client->execute({"cont"}, 20ms);
  const auto event = client->wait_event("STOP", 20ms);
  const auto resets = client->resets();
  ::shutdown(pair.theirs.get(), SHUT_RDWR);
  talker.join();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::timeout);
  ASSERT_FALSE(event);
  EXPECT_EQ(event.error().code, ErrorCode::timeout);
  EXPECT_TRUE(resets || resets.error().code == ErrorCode::timeout);
}

TEST(QmpClient, PassesADescriptor) {
  Pair pair(R"({"QMP": {}})"
            "\n"
            R"({"id": 2, "return": {}})"
            "\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  QmpClient::Command command{"getfd", {{"fdname", "x"}}};
  command.descriptor = writing.get();
  ASSERT_TRUE(client->execute(command, 20ms));
  writing.reset();
  char text[512];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  UniqueFd received;
  for (int i = 0; i < 2 && !received; ++i) {  // after qmp_capabilities
    iovec bytes{text, sizeof text};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ASSERT_GT(::recvmsg(pair.theirs.get(), &message, 0), 0);
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    received = UniqueFd(fd);
  }
  ASSERT_TRUE(received);
  ASSERT_EQ(::write(received.get(), "y", 1), 1);
  ASSERT_EQ(::read(reading.get(), text, 1), 1);
  EXPECT_EQ(text[0], 'y');
}

TEST(QmpClient, KnowsThatItBroke) {
  Pair pair(R"({"QMP": {}})"
            "\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  EXPECT_FALSE(client->broken());
  pair.theirs.reset();
  EXPECT_FALSE(client->execute({"cont"}, 20ms));
  EXPECT_TRUE(client->broken());
}

TEST(QmpClient, OtherPeersAreNamed) {
  for (const char* said : {"(qemu) \n", "{\"hello\": 1}\n", "[]\n", "{\n"}) {
    Pair pair(said);
    auto client = QmpClient::negotiate(std::move(pair.ours), 20ms);
    EXPECT_FALSE(client) << said;
  }
}

TEST(QmpClient, AClosedConnectionIsAnError) {
  Pair pair("{\"QMP\": {}}\n");
  auto client = QmpClient::negotiate(std::move(pair.ours));
  ASSERT_TRUE(client);
  pair.theirs.reset();
  auto answer = client->execute({"query-status"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::os);
}

TEST(QmpClient, StrangeAnswersAreErrors) {
  // Ids: 1 is qmp_capabilities, 2 the command.
  for (const char* said : {"{\"id\": 2}\n", "{\"id\": 2, \"error\": 7}\n",
                           "{\"id\": 2, \"error\": {\"desc\": {}}}\n", "\"text\"\n"}) {
    Pair pair(std::string("{\"QMP\": {}}\n") + said);
    auto client = QmpClient::negotiate(std::move(pair.ours));
    ASSERT_TRUE(client);
    EXPECT_FALSE(client->execute({"query-status"}, 20ms)) << said;
  }
}

TEST(QmpClient, MissingSocket) {
  auto client = QmpClient::connect("/nonexistent/qmp", ::getpid());
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().os_errno, ENOENT);
}

TEST(QmpClient, ConnectsThroughLongPaths) {
  std::string top = testing::TempDir() + "vmsight-qmp-XXXXXX";
  ASSERT_NE(::mkdtemp(top.data()), nullptr);
  const ScopeExit remove([&] { std::filesystem::remove_all(top); });
  const std::string directory = top + "/" + std::string(120, 'd');
  std::filesystem::create_directory(directory);
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory);
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  const sockaddr_un address{.sun_family = AF_UNIX, .sun_path = "qmp"};
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  std::filesystem::current_path(before);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  auto client = QmpClient::connect(directory + "/qmp", ::getpid(), 20ms);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ErrorCode::timeout) << client.error().message;  // not greeted
}

TEST(HasClient, ReadsNetUnix) {
  constexpr std::string_view text =
      "Num       RefCount Protocol Flags    Type St Inode Path\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 17243 /run/listening\n"
      "0000000000000000: 00000003 00000000 00000000 0001 03 17244 /run/held\n"
      "0000000000000000: 00000003 00000000 00000000 0001 03 17245\n"
      "0000000000000000: 00000003 00000000 00000000 0001 03   123 relative\n";
  EXPECT_TRUE(has_client(text, "/run/held"));
  EXPECT_TRUE(has_client(text, "/home/x/relative"));
  EXPECT_FALSE(has_client(text, "/run/listening"));
  EXPECT_FALSE(has_client(text, "/home/x/irrelative"));
  EXPECT_FALSE(has_client("", ""));
}

TEST(HumanText, WantsText) { EXPECT_FALSE(human_text(json(7))); }

}  // namespace
}  // namespace vmsight::qemu_qmp_test
