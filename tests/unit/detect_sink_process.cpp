// Sinks in a process of their own, and the journal's socket.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/os.h"
#include "base/socket_fd.h"
#include "detect/sink.h"
#include "support/in_folder.h"

namespace vmsight::detect_sink_process_test {
namespace {

using namespace detect;
using namespace std::chrono_literals;
using testing::HasSubstr;
using Sinks = std::vector<std::unique_ptr<AlarmSink>>;

Alarm alarm(std::string output) {
  return {.rule = "r",
          .priority = Priority::critical,
          .tags = {"a", "b"},
          .vm = "web",
          .time_ns = 7,
          .output = std::move(output),
          .fields = {},
          .evidence = nullptr};
}

class OwnProcess : public test::InFolder {
 protected:
  /// What `path` holds, once it holds anything.
  static std::string content_to_come(const std::string& path) {
    for (int i = 0; i < 500 && content(path).empty(); ++i) ::usleep(10'000);
    return content(path);
  }
  OpenSinks file(const std::string& name) const {
    return [path = path(name)]() -> Result<Sinks> {
      Sinks sinks;
      VMSIGHT_TRY(auto sink, open_file_sink(path, AlarmFormat::text, "h"));
      sinks.push_back(std::move(sink));
      VMSIGHT_TRY(auto commands, open_requested_commands_sink());
      sinks.push_back(std::move(commands));
      return sinks;
    };
  }
};

TEST_F(OwnProcess, DeliversAndIsAnother) {
  auto sink = open_process_sink(file("log"));
  ASSERT_TRUE(sink) << sink.error().message;
  Alarm one = alarm("one");
  one.commands = {
      {.arguments = {"/bin/sh", "-c", "cat; echo parent $PPID >> " + path("who")}, .limit = 10s}};
  EXPECT_TRUE((*sink)->deliver(one));
  EXPECT_TRUE((*sink)->deliver(alarm("two")));
  EXPECT_TRUE((*sink)->flush());
  EXPECT_THAT(content(path("log")), testing::MatchesRegex(".*r: one.*\n.*r: two.*\n"));
  EXPECT_THAT(content(path("who")), HasSubstr("parent "));
  EXPECT_EQ(content(path("who")).find(std::to_string(::getpid())), std::string::npos);
  EXPECT_EQ((*sink)->lost(), 0u);
}

TEST_F(OwnProcess, WhatCannotBeOpenedIsSaid) {
  const auto none = open_process_sink(file("no/log"));
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("for alarms: No such file or directory"));
}

TEST_F(OwnProcess, WhatItLosesIsCountedAndSaidOnce) {
  auto sink = open_process_sink([]() -> Result<Sinks> {
    Sinks sinks;
    VMSIGHT_TRY(auto full, open_file_sink("/dev/full", AlarmFormat::text));
    sinks.push_back(std::move(full));
    return sinks;
  });
  ASSERT_TRUE(sink);
  unsigned said = 0;
  for (int i = 0; i < 3; ++i) {
    said += (*sink)->deliver(alarm("x")) ? 0 : 1;
    said += (*sink)->flush() ? 0 : 1;
  }
  EXPECT_EQ(said, 1u);
  EXPECT_EQ((*sink)->lost(), 3u);
}

TEST_F(OwnProcess, ASinkThatHangsMakesNobodyWait) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  auto sink = open_process_sink([&]() -> Result<Sinks> {
    reader.reset();
    Sinks sinks;
    sinks.push_back(make_descriptor_sink(writer.get(), AlarmFormat::text));
    return sinks;
  });
  ASSERT_TRUE(sink);
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < 3000; ++i) static_cast<void>((*sink)->deliver(alarm(std::string(1000, 'x'))));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s);
  EXPECT_GT((*sink)->lost(), 1000u);
  reader.reset();  // now its writes fail
}

TEST_F(OwnProcess, ACommandThatFailsIsSaid) {
  auto sink = open_process_sink(file("log"));
  ASSERT_TRUE(sink);
  Alarm one = alarm("one");
  one.commands = {{.arguments = {"/bin/sh", "-c", "exit 3"}, .limit = 10s}};
  EXPECT_TRUE((*sink)->deliver(one));
  const auto flushed = (*sink)->flush();
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().message, "run exit 3: it exited with 3");
}

TEST_F(OwnProcess, AFileIsOpenedAnewThere) {
  auto sink = open_process_sink(file("log"));
  ASSERT_TRUE(sink);
  EXPECT_TRUE((*sink)->deliver(alarm("one")));
  EXPECT_TRUE((*sink)->flush());
  std::filesystem::rename(path("log"), path("log.1"));
  EXPECT_TRUE((*sink)->reopen());
  EXPECT_TRUE((*sink)->deliver(alarm("two")));
  EXPECT_TRUE((*sink)->flush());
  EXPECT_THAT(content(path("log.1")), HasSubstr("one"));
  EXPECT_THAT(content(path("log")), HasSubstr("two"));
}

TEST_F(OwnProcess, ItEndsWhatItHasBegunThoughWeAreKilled) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto sink = open_process_sink(file("log"));
    if (!sink) ::_exit(1);
    Alarm one = alarm("one");
    one.commands = {
        {.arguments = {"/bin/sh", "-c", "sleep 0.2; echo done > " + path("end")}, .limit = 10s}};
    static_cast<void>((*sink)->deliver(one));
    while (content(path("log")).empty()) ::usleep(1000);
    ::raise(SIGKILL);
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(content_to_come(path("end")), "done\n");
}

TEST_F(OwnProcess, ThatItWasKilledIsSaid) {
  auto sink = open_process_sink([]() -> Result<Sinks> {
    ::raise(SIGKILL);
    return Sinks();
  });
  ASSERT_FALSE(sink);
  EXPECT_EQ(sink.error().message, "deliver alarms: the process that does it has ended");
}

// ---- journald ----

class Journal {
 public:
  explicit Journal(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
  }
  /// The next entry, with those that came as a file; "" if there is none.
  std::string next() {
    std::string got(1 << 18, '\0');
    UniqueFd file;
    const ssize_t size =
        receive_with_fd(socket_.get(), std::as_writable_bytes(std::span(got)), file);
    if (size < 0) return "";
    got.resize(static_cast<std::size_t>(size));
    was_file_ = static_cast<bool>(file);
    if (!file) return got.empty() ? next() : got;
    EXPECT_EQ(::fcntl(file.get(), F_GET_SEALS),
              F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    struct stat about {};
    EXPECT_EQ(::fstat(file.get(), &about), 0);
    got.resize(static_cast<std::size_t>(about.st_size));
    EXPECT_EQ(::pread(file.get(), got.data(), got.size(), 0), about.st_size);
    return got;
  }
  bool was_file() const { return was_file_; }

 private:
  UniqueFd socket_;
  bool was_file_ = false;
};

TEST_F(OwnProcess, TheJournalGetsFields) {
  Journal journal(path("socket"));
  auto sink = open_journald_sink({.path = path("socket"), .hostname = "h"});
  ASSERT_TRUE(sink) << sink.error().message;
  EXPECT_TRUE((*sink)->deliver(alarm("one\ntwo")));
  const std::string got = journal.next();
  EXPECT_THAT(got, testing::StartsWith("MESSAGE=Critical r: one"));
  for (const char* field : {"\nPRIORITY=2\n", "\nSYSLOG_IDENTIFIER=vmsight\n", "\nVMSIGHT_RULE=r\n",
                            "\nVMSIGHT_VM=web\n", "\nVMSIGHT_TAGS=a\nVMSIGHT_TAGS=b\n",
                            "\nVMSIGHT_COUNT=1\n", "\nVMSIGHT_ALARM={"}) {
    EXPECT_THAT(got, HasSubstr(field));
  }
  EXPECT_EQ(std::count(got.begin(), got.end(), '\n'), 9) << got;  // the guest's line adds no field
}

TEST_F(OwnProcess, ALargeEntryGoesToTheJournalAsAFile) {
  Journal journal(path("socket"));
  auto sink = open_journald_sink({.path = path("socket")});
  ASSERT_TRUE(sink);
  EXPECT_TRUE((*sink)->deliver(alarm(std::string(1 << 20, 'x'))));
  const std::string got = journal.next();
  EXPECT_TRUE(journal.was_file());
  EXPECT_GT(got.size(), 2u << 20);
  EXPECT_THAT(got.substr(0, 100), testing::StartsWith("MESSAGE=Critical r: xxx"));
  EXPECT_TRUE((*sink)->deliver(alarm("small")));
  EXPECT_THAT(journal.next(), HasSubstr("small"));
  EXPECT_FALSE(journal.was_file());
}

TEST_F(OwnProcess, AJournalThatWasStartedAgainIsFound) {
  const auto none = open_journald_sink({.path = path("socket")});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message, "send to " + path("socket") + ": No such file or directory");
  auto journal = std::make_unique<Journal>(path("socket"));
  auto sink = open_journald_sink({.path = path("socket")});
  ASSERT_TRUE(sink);
  journal.reset();
  EXPECT_FALSE((*sink)->deliver(alarm("lost")));
  EXPECT_EQ((*sink)->lost(), 1u);
  std::filesystem::remove(path("socket"));
  journal = std::make_unique<Journal>(path("socket"));
  EXPECT_TRUE((*sink)->deliver(alarm("two")));
  EXPECT_THAT(journal->next(), HasSubstr("two"));
}

}  // namespace
}  // namespace vmsight::detect_sink_process_test
