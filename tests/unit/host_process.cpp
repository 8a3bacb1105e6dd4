#include "host/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <chrono>
#include <csignal>
#include <future>
#include <thread>

namespace vmsight::host_process_test {
namespace {

TEST(ParseStartTime, TheNameMayHoldAnything) {
  constexpr std::string_view rest =
      " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n";
  EXPECT_EQ(parse_start_time("42 (qemu)" + std::string(rest)).value(), 987654u);
  EXPECT_EQ(parse_start_time("42 (a) b ) (c)" + std::string(rest)).value(), 987654u);
  for (const char* text : {"", "42", "42 (x)", "42 (x) S 1 2",
                           "42 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 "
                           "13 14 15 16 17 18 x 20"}) {
    EXPECT_FALSE(parse_start_time(text)) << text;
  }
}

TEST(IsQemu, ByTheNameOfTheProgram) {
  EXPECT_TRUE(is_qemu("/usr/bin/qemu-system-x86_64", {}));
  EXPECT_TRUE(is_qemu("/opt/q/qemu-system-x86_64 (deleted)", {}));
  EXPECT_TRUE(is_qemu("/usr/libexec/qemu-kvm", {}));
  EXPECT_FALSE(is_qemu("/usr/bin/qemu-img", {}));
  EXPECT_FALSE(is_qemu("/bin/sh", {"sh", "-c", "qemu-system-x86_64"}));
}

TEST(IsQemu, ThroughTheDynamicLoader) {
  const std::vector<std::string> run = {"ld.so", "--library-path", "/q/lib",
                                        "/q/qemu-system-x86_64"};
  EXPECT_TRUE(is_qemu("/q/ld-linux-x86-64.so.2", run));
  EXPECT_FALSE(is_qemu("/q/ld-linux-x86-64.so.2", {"ld.so", "/bin/true"}));
  EXPECT_FALSE(is_qemu("/q/ld-linux-x86-64.so.2", {}));
}

TEST(SplitArguments, KeepsEmptyOnes) {
  using namespace std::string_view_literals;
  EXPECT_THAT(split_arguments("a\0\0b\0"sv), testing::ElementsAre("a", "", "b"));
  EXPECT_THAT(split_arguments(""), testing::IsEmpty());
}

/// A child that waits for a signal.
class Child {
 public:
  explicit Child(void (*work)() = [] { ::pause(); }) : pid_(::fork()) {
    if (pid_ == 0) {
      work();
      ::_exit(0);
    }
  }
  ~Child() { end(); }
  pid_t pid() const { return pid_; }
  void kill() { ::kill(pid_, SIGKILL); }
  void end() {
    if (pid_ <= 0) return;
    kill();
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

TEST(Pidfd, TellsTheEndOfAProcess) {
  Child child;
  const pid_t pid = child.pid();
  auto id = identify(pid);
  ASSERT_TRUE(id) << id.error().message;
  auto pidfd = open_pidfd(*id);
  ASSERT_TRUE(pidfd) << pidfd.error().message;
  EXPECT_TRUE(check_pidfd(pidfd->get(), pid));
  child.kill();
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  auto zombie = check_pidfd(pidfd->get(), pid);
  ASSERT_FALSE(zombie);
  EXPECT_EQ(zombie.error().code, ErrorCode::vm_gone);
  child.end();
  EXPECT_EQ(check_pidfd(pidfd->get(), pid).error().code, ErrorCode::vm_gone);
  EXPECT_EQ(identify(pid).error().code, ErrorCode::vm_gone);
  EXPECT_EQ(read_proc_file(pid, "maps").error().code, ErrorCode::vm_gone);
}

TEST(Pidfd, RefusesALaterProcessWithTheSamePid) {
  Child child;
  auto id = identify(child.pid());
  ASSERT_TRUE(id);
  --id->start_time;
  EXPECT_EQ(open_pidfd(*id).error().code, ErrorCode::vm_gone);
}

TEST(IsStopped, SeesSigstop) {
  Child child;
  EXPECT_FALSE(is_stopped(child.pid()));
  ASSERT_EQ(::kill(child.pid(), SIGSTOP), 0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED), 0);
  EXPECT_TRUE(is_stopped(child.pid()));
}

TEST(IsStopped, TellsATracerThatLetsGoOnFromOneThatDoesNot) {
  Child child([] {
    while (true) ::getppid();
  });
  const pid_t pid = child.pid();
  int status = 0;
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_EXITKILL), 0);
  ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr), 0);
  ASSERT_EQ(::waitpid(pid, &status, __WALL), pid);
  EXPECT_TRUE(is_stopped(pid));

  auto answer = std::async(std::launch::async, [pid] {
    for (int i = 0; i < 10; ++i) {
      if (is_stopped(pid)) return true;
    }
    return false;
  });
  while (answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    ASSERT_EQ(::ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr), 0);
    ASSERT_EQ(::waitpid(pid, &status, __WALL), pid);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // it stands nearly always
  }
  EXPECT_FALSE(answer.get());
}

TEST(ReadProcFile, IsBounded) {
  auto text = read_proc_file(::getpid(), "maps", 10);
  ASSERT_TRUE(text);
  EXPECT_EQ(text->size(), 10u);
}

}  // namespace
}  // namespace vmsight::host_process_test
