#include "detect/background_sink.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include "support/in_folder.h"

namespace vmsight::detect_background_sink_test {
namespace {

using namespace detect;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

Alarm alarm(std::string output) {
  return {.rule = "r",
          .priority = Priority::critical,
          .tags = {"a", "b"},
          .vm = "web",
          .time_ns = 7,
          .output = std::move(output),
          .fields = {},
          .evidence = nullptr,
          .first_ns = 7};
}

/// Waits for a condition, with a deadline.
template <typename Condition>
bool comes_true(const Condition& condition) {
  const auto deadline = Clock::now() + 20s;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// ---- threads ----

/// Waits until it may go on, or must stop.
struct Gate {
  UniqueFd open{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::atomic<int> waiting{0}, most{0};
  void pass(int stop) {
    const int now = ++waiting;
    for (int before = most; before < now && !most.compare_exchange_weak(before, now);) {
    }
    pollfd both[] = {{.fd = open.get(), .events = POLLIN, .revents = 0},
                     {.fd = stop, .events = POLLIN, .revents = 0}};
    while (::poll(both, 2, -1) < 0) {
    }
    --waiting;
  }
  void let_go() const { ::eventfd_write(open.get(), 1); }
};

std::unique_ptr<AlarmSink> made(BackgroundSink::Options options, BackgroundSink::Send send) {
  if (options.flush_limit == 0ms) options.flush_limit = 20s;
  options.name = "test";
  auto sink = make_background_sink(std::move(options), std::move(send));
  EXPECT_TRUE(sink);
  return *std::move(sink);
}

TEST(BackgroundSink, SendsAllAndFlushWaits) {
  std::atomic<int> sent{0};
  const auto sink = made({.threads = 3, .waiting = 100}, [&](std::span<const Alarm> alarms, int) {
    sent += static_cast<int>(alarms.size());
    return Result<void>();
  });
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(sink->deliver(alarm("x")));
  EXPECT_TRUE(sink->flush());
  EXPECT_EQ(sent, 100);
  EXPECT_EQ(sink->lost(), 0u);
}

TEST(BackgroundSink, SendsSoManyAtOnceAndLosesWhatHasNoRoom) {
  Gate gate;
  const auto sink = made({.threads = 3, .waiting = 4}, [&](std::span<const Alarm>, int stop) {
    gate.pass(stop);
    return Result<void>();
  });
  for (int i = 1; i <= 3; ++i) {
    EXPECT_TRUE(sink->deliver(alarm("x")));
    EXPECT_TRUE(comes_true([&] { return gate.waiting == i; }));
  }
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(sink->deliver(alarm("x")));
  const auto full = sink->deliver(alarm("x"));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().message, "test: 4 alarms wait already, more are lost");
  EXPECT_TRUE(sink->deliver(alarm("x")));  // told once
  EXPECT_EQ(sink->lost(), 2u);
  gate.let_go();
  EXPECT_TRUE(sink->flush());
  EXPECT_EQ(gate.most, 3);
}

TEST(BackgroundSink, AFailureIsToldOnceAndAgainAfterASuccess) {
  std::atomic<bool> fails{true};
  const auto sink = made({.threads = 1}, [&](std::span<const Alarm>, int) {
    return fails ? Result<void>(Error{.message = "test: broken"}) : Result<void>();
  });
  const auto one = [&] {
    const bool delivered = sink->deliver(alarm("x")).has_value();
    return sink->flush().has_value() && delivered;
  };
  EXPECT_FALSE(one());
  EXPECT_TRUE(one());
  EXPECT_EQ(sink->lost(), 2u);
  fails = false;
  EXPECT_TRUE(one());
  fails = true;
  EXPECT_FALSE(one());
  EXPECT_EQ(sink->lost(), 3u);
}

TEST(BackgroundSink, FlushGivesUpAfterItsTime) {
  Gate gate;
  const auto sink = made({.threads = 1, .waiting = 10, .flush_limit = 20ms},
                         [&](std::span<const Alarm>, int stop) {
                           gate.pass(stop);
                           return Result<void>();
                         });
  EXPECT_TRUE(sink->deliver(alarm("x")));
  EXPECT_TRUE(comes_true([&] { return gate.waiting == 1; }));
  EXPECT_TRUE(sink->deliver(alarm("y")));
  const auto late = sink->flush();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().message, "test: 1 alarms could not be sent in time");
  EXPECT_EQ(sink->lost(), 1u);
  // Its end stops what is being sent.
}

TEST(BackgroundSink, SendsBatches) {
  Gate gate;
  std::vector<std::size_t> sizes;
  const auto sink = made({.threads = 1, .waiting = 100, .batch = 8},
                         [&](std::span<const Alarm> alarms, int stop) {
                           sizes.push_back(alarms.size());
                           gate.pass(stop);
                           return Result<void>();
                         });
  EXPECT_TRUE(sink->deliver(alarm("x")));
  EXPECT_TRUE(comes_true([&] { return gate.waiting == 1; }));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(sink->deliver(alarm("x")));
  gate.let_go();
  EXPECT_TRUE(sink->flush());
  EXPECT_THAT(sizes, ElementsAre(1, 8, 2));
}

// ---- commands ----

class Commands : public test::InFolder {
 protected:
  static std::unique_ptr<AlarmSink> opened(CommandOptions options) {
    options.hostname = "h";
    auto sink = open_command_sink(std::move(options));
    EXPECT_TRUE(sink) << sink.error().message;
    return *std::move(sink);
  }
};

TEST_F(Commands, GetTheAlarmAsJson) {
  const auto sink = opened({.shell_line = "cat > " + path("got")});
  EXPECT_TRUE(sink->deliver(alarm("one \x1b'\"$(id)")));
  EXPECT_TRUE(sink->flush());
  const std::string got = content(path("got"));
  EXPECT_TRUE(got.ends_with("}\n"));
  EXPECT_EQ(Json::parse(got)["output"], "one \x1b'\"$(id)");
  EXPECT_EQ(sink->lost(), 0u);
}

TEST_F(Commands, WithArgumentsNeedNoShell) {
  const auto sink =
      opened({.arguments = {"cp", "/dev/stdin", path("$HOME;x")}, .format = AlarmFormat::text});
  EXPECT_TRUE(sink->deliver(alarm("one")));
  EXPECT_TRUE(sink->flush());
  EXPECT_THAT(content(path("$HOME;x")), HasSubstr("Critical r: one (vm=web)\n"));
}

TEST_F(Commands, HaveNothingElseOfOurs) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  const UniqueFd leak(::open("/dev/null", O_RDONLY));  // not closed on exec
  ASSERT_TRUE(leak);
  const auto sink =
      opened({.shell_line = "ls /proc/self/fd > " + path("fds") +
                            "; grep -E 'Sig(Blk|Ign)' /proc/self/status > " + path("signals")});
  EXPECT_TRUE(sink->deliver(alarm("x")));
  EXPECT_TRUE(sink->flush());
  std::signal(SIGPIPE, before);
  EXPECT_EQ(content(path("fds")), "0\n1\n2\n3\n");  // 3 is the folder that ls reads
  const std::string signals = content(path("signals"));
  EXPECT_THAT(signals, HasSubstr("SigBlk:\t0000000000000000\n"));
  const std::string ignored = signals.substr(signals.find("SigIgn:") + 7);
  EXPECT_EQ(std::stoull(ignored, nullptr, 16) & 1u << (SIGPIPE - 1), 0u) << ignored;
}

TEST_F(Commands, ThatFailAreReportedOnceAndCounted) {
  const auto failing = opened({.shell_line = "exit 3"});
  EXPECT_TRUE(failing->deliver(alarm("x")));
  const auto first = failing->flush();
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().message, "run exit 3: it exited with 3");
  EXPECT_TRUE(failing->deliver(alarm("x")));
  EXPECT_TRUE(failing->flush());
  EXPECT_EQ(failing->lost(), 2u);
  const auto dying = opened({.shell_line = "kill -9 $$"});
  EXPECT_TRUE(dying->deliver(alarm("x")));
  EXPECT_EQ(dying->flush().error().message, "run kill -9 $$: it died of signal 9");
  const auto none = opened({.arguments = {"/nosuch/program"}});
  EXPECT_TRUE(none->deliver(alarm("x")));
  EXPECT_EQ(none->flush().error().message, "run /nosuch/program: No such file or directory");
}

TEST_F(Commands, ThatTakeTooLongAreKilledWithTheirChildren) {
  const auto sink =
      opened({.shell_line = "sleep 1000 & echo $! > " + path("child") + "; wait", .limit = 300ms});
  EXPECT_TRUE(sink->deliver(alarm("x")));
  const auto late = sink->flush();
  ASSERT_FALSE(late);
  EXPECT_THAT(late.error().message, HasSubstr(": it was ended after 300 ms"));
  EXPECT_EQ(late.error().code, ErrorCode::timeout);
  const int child = std::stoi(content(path("child")));
  // Dead, if perhaps not yet reaped by whoever inherited it.
  EXPECT_TRUE(comes_true([&] {
    const std::string stat = content("/proc/" + std::to_string(child) + "/stat");
    return stat.empty() || stat.find(") Z ") != stat.npos;
  }));
}

TEST_F(Commands, DoNotReadNeedNot) {
  const auto sink = opened({.shell_line = "true"});
  EXPECT_TRUE(sink->deliver(alarm(std::string(1 << 20, 'x'))));
  EXPECT_TRUE(sink->flush());
}

TEST_F(Commands, AreEndedWithTheSink) {
  const auto begun = Clock::now();
  {
    const auto sink = opened({.shell_line = "echo $$ > " + path("pid") + "; exec sleep 1000"});
    EXPECT_TRUE(sink->deliver(alarm("x")));
    EXPECT_TRUE(comes_true([&] { return content(path("pid")).ends_with('\n'); }));
  }
  EXPECT_NE(::kill(std::stoi(content(path("pid"))), 0), 0);
  EXPECT_LT(Clock::now() - begun, 20s);
}

TEST_F(Commands, WantOneProgram) {
  EXPECT_FALSE(open_command_sink({}));
  EXPECT_FALSE(open_command_sink({.arguments = {"a"}, .shell_line = "b"}));
  EXPECT_FALSE(open_command_sink({.arguments = {"a"}, .at_once = 0}));
  EXPECT_FALSE(open_command_sink({.arguments = {"a"}, .at_once = 65}));
}

// ---- Alertmanager ----

/// Takes connections, each of which gets the answer.
class Server {
 public:
  explicit Server(std::string answer) : answer_(std::move(answer)) {
    socket_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(socket_.get(), 8), 0);
    ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  const std::string& address() const { return address_; }

  /// Serves one connection: its request. Without an answer it is kept open.
  std::string serve() {
    UniqueFd peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::string request;
    while (!is_whole(request)) {
      char buffer[4096];
      const ssize_t got = ::recv(peer.get(), buffer, sizeof buffer, 0);
      if (got <= 0) break;
      request.append(buffer, static_cast<std::size_t>(got));
    }
    if (answer_.empty()) {
      kept_ = std::move(peer);
    } else {
      ::send(peer.get(), answer_.data(), answer_.size(), MSG_NOSIGNAL);
    }
    return request;
  }

 private:
  static bool is_whole(const std::string& request) {
    const std::size_t head = request.find("\r\n\r\n"), field = request.find("Content-Length: ");
    if (head == request.npos || field == request.npos) return false;
    return request.size() >= head + 4 + std::stoul(request.substr(field + 16));
  }
  std::string answer_, address_;
  UniqueFd socket_, kept_;
};

std::unique_ptr<AlarmSink> alertmanager(const std::string& address,
                                        std::chrono::milliseconds limit = 10s) {
  auto sink = open_alertmanager_sink({.address = address, .limit = limit, .hostname = "node1"});
  EXPECT_TRUE(sink) << sink.error().message;
  return *std::move(sink);
}

TEST(AlertmanagerSink, PostsAlerts) {
  Server server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  const auto sink = alertmanager(server.address());
  Alarm one = alarm("it \xff was");
  one.count = 3;
  EXPECT_TRUE(sink->deliver(one));
  const std::string request = server.serve();
  EXPECT_TRUE(sink->flush());
  EXPECT_TRUE(request.starts_with("POST /api/v2/alerts HTTP/1.1\r\nHost: " + server.address()));
  EXPECT_THAT(request, HasSubstr("Content-Type: application/json\r\n"));
  const Json alerts = Json::parse(request.substr(request.find("\r\n\r\n")));
  ASSERT_EQ(alerts.size(), 1u);
  EXPECT_EQ(alerts[0]["labels"], Json({{"alertname", "r"},
                                       {"severity", "critical"},
                                       {"vm", "web"},
                                       {"instance", "node1"},
                                       {"source", "vmsight"}}));
  EXPECT_EQ(alerts[0]["annotations"]["summary"], "it \\xff was");
  EXPECT_EQ(alerts[0]["annotations"]["count"], "3");
  EXPECT_EQ(alerts[0]["annotations"]["tags"], "a b");
  EXPECT_EQ(alerts[0]["startsAt"], "1970-01-01T00:00:00.000000007Z");
  EXPECT_EQ(sink->lost(), 0u);
}

TEST(AlertmanagerSink, ARefusalIsAnError) {
  Server server("HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nwhy\x1b\n");
  const auto sink = alertmanager(server.address());
  EXPECT_TRUE(sink->deliver(alarm("x")));
  server.serve();
  const auto refused = sink->flush();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "post to " + server.address() + ": it answered \"HTTP/1.1 400 Bad Request\"");
  EXPECT_EQ(refused.error().hint, "why\\x1b\\x0a");
  EXPECT_EQ(sink->lost(), 1u);
}

TEST(AlertmanagerSink, NoAnswerIsWaitedForNoLongerThanTheLimit) {
  Server server("");
  const auto sink = alertmanager(server.address(), 100ms);
  EXPECT_TRUE(sink->deliver(alarm("x")));
  server.serve();
  const auto late = sink->flush();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().message, "post to " + server.address() + ": no answer in time");
}

TEST(AlertmanagerSink, NobodyThereIsAnError) {
  std::string address;
  {
    const Server gone("");
    address = gone.address();
  }
  const auto sink = alertmanager(address);
  EXPECT_TRUE(sink->deliver(alarm("x")));
  const auto refused = sink->flush();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "post to " + address + ": Connection refused");
}

TEST(AlertmanagerSink, NonsenseIsAnError) {
  Server server("220 mail ready\r\n");
  const auto sink = alertmanager(server.address());
  EXPECT_TRUE(sink->deliver(alarm("x")));
  server.serve();
  EXPECT_THAT(sink->flush().error().message, HasSubstr("it answered \"220 mail ready\""));
}

TEST(AlertmanagerSink, AddressesAreHostAndPort) {
  for (const char* address :
       {"", "localhost", "localhost:", "localhost:0", "localhost:70000", "localhost:80x", ":80",
        "http://localhost:80", "::1:80", "a b:80", "[]:80", "a\n:80"}) {
    const auto sink = open_alertmanager_sink({.address = address});
    ASSERT_FALSE(sink) << address;
    EXPECT_THAT(sink.error().message, HasSubstr("is no address of an Alertmanager")) << address;
    EXPECT_EQ(sink.error().hint, "write HOST:PORT or [IPV6]:PORT");
  }
  EXPECT_TRUE(open_alertmanager_sink({.address = "[::1]:9093"}));
  EXPECT_FALSE(open_alertmanager_sink({.address = "127.0.0.1:9093", .path = "x y"}));
}

}  // namespace
}  // namespace vmsight::detect_background_sink_test
