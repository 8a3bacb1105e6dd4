#include "detect/sink.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/os.h"
#include "support/in_folder.h"

namespace vmsight::detect_sink_test {
namespace {

using namespace detect;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;

Alarm alarm(std::string output) {
  return {.rule = "r",
          .priority = Priority::critical,
          .tags = {},
          .vm = "web",
          .time_ns = 7,
          .output = std::move(output),
          .fields = {},
          .evidence = nullptr};
}

class Sinks : public test::InFolder {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);
    InFolder::SetUp();
  }
  static std::string line(const std::string& output) {
    return "1970-01-01T00:00:00.000000007Z: Critical r: " + output + " (vm=web)\n";
  }
};

// ---- files ----

TEST_F(Sinks, AFileGetsLines) {
  std::ofstream(path("log")) << "before\n";
  auto sink = open_file_sink(path("log"), AlarmFormat::text, "h");
  ASSERT_TRUE(sink) << sink.error().message;
  EXPECT_TRUE((*sink)->deliver(alarm("one")));
  EXPECT_TRUE((*sink)->deliver(alarm("two")));
  EXPECT_TRUE((*sink)->flush());
  EXPECT_EQ(content(path("log")), "before\n" + line("one") + line("two"));
  EXPECT_EQ((*sink)->lost(), 0u);
}

TEST_F(Sinks, ANewFileIsItsOwnersAlone) {
  ASSERT_TRUE(open_file_sink(path("log"), AlarmFormat::json));
  struct stat about {};
  ASSERT_EQ(::stat(path("log").c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777u, 0600u);
}

TEST_F(Sinks, AFileIsOpenedAnewOnRequest) {
  auto sink = open_file_sink(path("log"), AlarmFormat::text, "h");
  ASSERT_TRUE(sink);
  EXPECT_TRUE((*sink)->deliver(alarm("one")));
  std::filesystem::rename(path("log"), path("log.1"));
  EXPECT_TRUE((*sink)->deliver(alarm("two")));
  EXPECT_TRUE((*sink)->reopen());
  EXPECT_TRUE((*sink)->deliver(alarm("three")));
  EXPECT_EQ(content(path("log.1")), line("one") + line("two"));
  EXPECT_EQ(content(path("log")), line("three"));
  // If it cannot be, the old one stays.
  std::filesystem::remove(path("log"));
  std::filesystem::create_directory(path("log"));
  EXPECT_FALSE((*sink)->reopen());
  EXPECT_TRUE((*sink)->deliver(alarm("four")));
}

TEST_F(Sinks, AFileThatCannotBeOpenedIsAnError) {
  const auto none = open_file_sink(path("no/log"), AlarmFormat::text);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message,
            "open " + path("no/log") + " for alarms: No such file or directory");
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const auto pipe = open_file_sink(path("pipe"), AlarmFormat::text);
  ASSERT_FALSE(pipe);
  EXPECT_EQ(pipe.error().hint, "nobody reads from the pipe yet");
}

TEST_F(Sinks, AFullDiskIsReportedOnceAndCounted) {
  auto sink = open_file_sink("/dev/full", AlarmFormat::text);
  ASSERT_TRUE(sink);
  const auto first = (*sink)->deliver(alarm("one"));
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().message, "write an alarm to /dev/full: No space left on device");
  EXPECT_TRUE((*sink)->deliver(alarm("two")));
  EXPECT_TRUE((*sink)->deliver(alarm("three")));
  EXPECT_EQ((*sink)->lost(), 3u);
}

TEST_F(Sinks, APipeThatNobodyReadsMakesNobodyWait) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  UniqueFd reader(::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(reader);
  auto sink = open_file_sink(path("pipe"), AlarmFormat::text, "h");
  ASSERT_TRUE(sink);
  std::uint64_t failures = 0;
  for (int i = 0; i < 100; ++i) failures += (*sink)->deliver(alarm(std::string(5000, 'x'))) ? 0 : 1;
  EXPECT_EQ(failures, 1u);
  EXPECT_GT((*sink)->lost(), 50u);
  // When it is read again, a line begins at its beginning, and a new failure is told.
  std::string got(1 << 20, '\0');
  ASSERT_GT(::read(reader.get(), got.data(), got.size()), 0);
  EXPECT_TRUE((*sink)->deliver(alarm("again")));
  const ssize_t size = ::read(reader.get(), got.data(), got.size());
  ASSERT_GT(size, 0);
  EXPECT_EQ(got.substr(0, static_cast<std::size_t>(size)), "\n" + line("again"));
  reader.reset();
  const auto broken = (*sink)->deliver(alarm("x"));
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message, HasSubstr("Broken pipe"));
}

TEST_F(Sinks, ADescriptorStaysTheCallers) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  {
    const auto sink = make_descriptor_sink(writer.get(), AlarmFormat::json, "h");
    EXPECT_TRUE(sink->deliver(alarm("one")));
    EXPECT_TRUE(sink->reopen());
  }
  std::array<char, 4096> got{};
  ASSERT_GT(::read(reader.get(), got.data(), got.size()), 0);
  EXPECT_EQ(nlohmann::json::parse(got.data())["output"], "one");
  EXPECT_EQ(::fcntl(writer.get(), F_GETFD), FD_CLOEXEC);
}

// ---- syslog ----

class Daemon {
 public:
  explicit Daemon(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    ::unlink(path.c_str());
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
  }
  /// The next datagram; "" if there is none.
  std::string next() const {
    std::string got(1 << 18, '\0');
    const ssize_t size = ::recv(socket_.get(), got.data(), got.size(), 0);
    got.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return got;
  }

 private:
  UniqueFd socket_;
};

TEST_F(Sinks, SyslogGetsWhatSyslog3Writes) {
  const Daemon daemon(path("log"));
  auto sink = open_syslog_sink({.path = path("log"), .hostname = "h"});
  ASSERT_TRUE(sink) << sink.error().message;
  EXPECT_TRUE((*sink)->deliver(alarm("one")));
  EXPECT_THAT(daemon.next(), MatchesRegex("<26>(Jan  1|Dec 31) [0-9:]{8} vmsight\\[[0-9]+\\]: "
                                          "Critical r: one \\(vm=web\\)"));
  EXPECT_TRUE((*sink)->flush());
}

TEST_F(Sinks, SyslogMayBeRfc5424AndJson) {
  const Daemon daemon(path("log"));
  auto sink = open_syslog_sink({.path = path("log"),
                                .header = SyslogOptions::Header::rfc5424,
                                .format = AlarmFormat::json,
                                .facility = 16,
                                .identifier = "watch",
                                .hostname = "h"});
  ASSERT_TRUE(sink);
  EXPECT_TRUE((*sink)->deliver(alarm("one")));
  const std::string got = daemon.next();
  EXPECT_THAT(got, MatchesRegex("<130>1 1970-01-01T00:00:00\\.000000Z h watch [0-9]+ alarm - "
                                "\\{.*\\}"));
  EXPECT_EQ(nlohmann::json::parse(got.substr(got.find('{')))["output"], "one");
}

TEST_F(Sinks, ASyslogThatWasStartedAgainIsFound) {
  auto daemon = std::make_unique<Daemon>(path("log"));
  auto sink = open_syslog_sink({.path = path("log"), .hostname = "h"});
  ASSERT_TRUE(sink);
  EXPECT_TRUE((*sink)->deliver(alarm("one")));
  daemon.reset();
  const auto failed = (*sink)->deliver(alarm("two"));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "send to " + path("log") + ": Connection refused");
  EXPECT_TRUE((*sink)->deliver(alarm("three")));  // told once
  EXPECT_EQ((*sink)->lost(), 2u);
  daemon = std::make_unique<Daemon>(path("log"));
  EXPECT_TRUE((*sink)->deliver(alarm("four")));
  EXPECT_THAT(daemon->next(), HasSubstr("four"));
  EXPECT_EQ((*sink)->lost(), 2u);
}

TEST_F(Sinks, ASyslogThatDoesNotReadMakesNobodyWait) {
  const Daemon daemon(path("log"));
  auto sink = open_syslog_sink({.path = path("log"), .hostname = "h"});
  ASSERT_TRUE(sink);
  std::uint64_t failures = 0;
  for (int i = 0; i < 2000; ++i) {
    failures += (*sink)->deliver(alarm(std::string(2000, 'x'))) ? 0 : 1;
  }
  EXPECT_EQ(failures, 1u);
  EXPECT_GT((*sink)->lost(), 0u);
  EXPECT_THAT(daemon.next(), HasSubstr("xxx"));
}

TEST_F(Sinks, LongTextsToSyslogAreCut) {
  const Daemon daemon(path("log"));
  auto sink = open_syslog_sink({.path = path("log"), .hostname = "h"});
  ASSERT_TRUE(sink);
  EXPECT_TRUE((*sink)->deliver(alarm(std::string(1 << 20, 'x'))));
  EXPECT_GT(daemon.next().size(), 30'000u);
}

TEST_F(Sinks, SyslogThatIsNotThereIsAnError) {
  const auto none = open_syslog_sink({.path = path("log")});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message, "send to " + path("log") + ": No such file or directory");
  const auto longer = open_syslog_sink({.path = "/" + std::string(200, 'x')});
  ASSERT_FALSE(longer);
  EXPECT_THAT(longer.error().message, HasSubstr("the path is too long"));
  const Daemon daemon(path("log"));
  EXPECT_FALSE(open_syslog_sink({.path = path("log"), .facility = 24}));
  EXPECT_FALSE(open_syslog_sink({.path = path("log"), .identifier = "two words"}));
  EXPECT_FALSE(open_syslog_sink({.path = path("log"), .identifier = "line\nend"}));
}

}  // namespace
}  // namespace vmsight::detect_sink_test
