// What a process in the sandbox can still do, and that everything else is refused or ends it. Each case runs in a
// process of its own.
#include "sandbox/sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "sandbox/landlock.h"

namespace vmsight::sandbox_sandbox_test {
namespace {

constexpr int refused = 0, done = 9, not_entered = 2, ended_by_sandbox = 70;

/// Exit status of a process that enters the sandbox and does this: `done` if it is true.
int in_sandbox(const std::function<bool()>& act, const SandboxRights& rights = {}) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!enter_sandbox(rights)) ::_exit(not_entered);
    ::_exit(act() ? done : refused);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// The call fails, or ends the process.
void expect_refused(const std::function<bool()>& act, const char* what) {
  const int status = in_sandbox(act);
  EXPECT_TRUE(status == refused || status == ended_by_sandbox) << what << ": " << status;
}
#define EXPECT_REFUSED(...) expect_refused(__VA_ARGS__, #__VA_ARGS__)

class Sleeper {
 public:
  Sleeper() : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (true) ::pause();
    }
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  bool lives() const { return ::waitpid(pid_, nullptr, WNOHANG) == 0; }

 private:
  pid_t pid_;
};

std::uint64_t word = 42;

bool reads_word_of(pid_t pid) {
  std::uint64_t value = 0;
  const iovec into{&value, sizeof value}, from{&word, sizeof word};
  return ::process_vm_readv(pid, &into, 1, &from, 1, 0) == sizeof value && value == 42;
}

TEST(Sandbox, LeavesWhatInterpretingNeeds) {
  EXPECT_EQ(in_sandbox([] {
              std::vector<std::string> many(1000, std::string(1000, 'x'));
              bool threads_run = false;
              std::thread([&] { threads_run = true; }).join();
              return threads_run && ::write(STDERR_FILENO, "", 0) == 0 && std::time(nullptr) > 0;
            }),
            done);
}

TEST(Sandbox, OpensNoFile) {
  EXPECT_REFUSED([] { return ::open("/etc/passwd", O_RDONLY) >= 0; });
  EXPECT_REFUSED([] { return ::open("/proc/self/mem", O_RDWR) >= 0; });
  EXPECT_REFUSED([] { return ::open("/tmp", O_TMPFILE | O_RDWR, 0600) >= 0; });
  EXPECT_REFUSED([] { return ::creat("/tmp/vmsight-sandbox-test", 0600) >= 0; });
  EXPECT_REFUSED([] { return ::syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", nullptr, 24) >= 0; });
  EXPECT_REFUSED([] { return ::unlink("/tmp/vmsight-no-such-file") == 0 || errno == ENOENT; });
  EXPECT_REFUSED([] { return ::syscall(SYS_io_uring_setup, 1, nullptr) >= 0 || errno == EFAULT; });
}

TEST(Sandbox, MakesNoConnection) {
  EXPECT_REFUSED([] { return ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0; });
  EXPECT_REFUSED([] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0; });
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);  // one that was there before
  EXPECT_REFUSED([&] {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(9);
    return ::sendto(socket, "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof to) == 1;
  });
  ::close(socket);
}

TEST(Sandbox, TouchesNoOtherProcess) {
  const Sleeper other;
  EXPECT_REFUSED([&] { return ::kill(other.pid(), SIGKILL) == 0; });
  EXPECT_REFUSED([&] { return ::syscall(SYS_tgkill, other.pid(), other.pid(), SIGKILL) == 0; });
  EXPECT_REFUSED([&] { return ::ptrace(PTRACE_SEIZE, other.pid(), nullptr, nullptr) == 0; });
  EXPECT_REFUSED([&] { return ::syscall(SYS_pidfd_open, other.pid(), 0) >= 0; });
  EXPECT_REFUSED([&] { return reads_word_of(other.pid()); });
  EXPECT_REFUSED([&] {
    const iovec from{&word, sizeof word};
    return ::process_vm_writev(other.pid(), &from, 1, &from, 1, 0) == sizeof word;
  });
  EXPECT_TRUE(other.lives());
}

TEST(Sandbox, ReadsTheOneProcessThatItIsFor) {
  const Sleeper vm, other;
  EXPECT_EQ(in_sandbox([&] { return reads_word_of(vm.pid()); }, {.reads = vm.pid()}), done);
  const int status = in_sandbox([&] { return reads_word_of(other.pid()); }, {.reads = vm.pid()});
  EXPECT_EQ(status, ended_by_sandbox);
  const int written = in_sandbox(
      [&] {
        const iovec from{&word, sizeof word};
        return ::process_vm_writev(vm.pid(), &from, 1, &from, 1, 0) == sizeof word;
      },
      {.reads = vm.pid()});
  EXPECT_EQ(written, ended_by_sandbox);
}

TEST(Sandbox, HasAnEmptyRootWhereItReadsAnotherProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may change its root";
  EXPECT_EQ(in_sandbox(
                [&] {
                  struct stat info {};
                  // By the one name that is left to ask for: none of the host's root is there.
                  return ::syscall(SYS_newfstatat, AT_FDCWD, "/etc", &info, AT_EMPTY_PATH) != 0 &&
                         errno == ENOENT;
                },
                {.reads = ::getppid()}),
            done);
}

TEST(Sandbox, ExecutesNothing) {
  EXPECT_REFUSED([] { return ::execl("/bin/true", "true", nullptr) == 0 || errno != EPERM; });
  EXPECT_REFUSED([] { return ::fork() >= 0; });
  EXPECT_REFUSED([] {
    return ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED;
  });
  EXPECT_REFUSED([] {
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return ::mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0;
  });
}

TEST(Sandbox, HasNoRightsOfItsUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root has a user to give up";
  EXPECT_EQ(in_sandbox([] { return ::geteuid() != 0 && ::getuid() != 0 && ::getegid() != 0; }),
            done);
  EXPECT_REFUSED([] { return ::setuid(0) == 0; });
  EXPECT_REFUSED([] { return ::syscall(SYS_reboot, 0, 0, 0, nullptr) == 0 || errno != EPERM; });
}

TEST(Sandbox, TypesNothingIntoATerminal) {
  EXPECT_REFUSED([] { return ::ioctl(STDOUT_FILENO, TIOCSTI, "x") == 0 || errno != EPERM; });
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  ASSERT_EQ(::write(ends[1], "typed", 5), 5);
  EXPECT_REFUSED([&] {
    char byte = 0;
    ::dup2(ends[0], STDIN_FILENO);
    return ::read(STDIN_FILENO, &byte, 1) == 1;
  });
  const int before = ::dup(STDIN_FILENO);
  ::dup2(ends[0], STDIN_FILENO);
  EXPECT_REFUSED([&] {
    char byte = 0;
    return ::read(STDIN_FILENO, &byte, 1) == 1;
  });
  ::dup2(before, STDIN_FILENO);
  for (const int fd : {before, ends[0], ends[1]}) ::close(fd);
}

TEST(Sandbox, IsForAProcessWithOneThread) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::thread waits([] { ::pause(); });
    const auto done = enter_sandbox({});
    ::_exit(!done && done.error().code == ErrorCode::unsupported &&
            ::open("/etc/passwd", O_RDONLY) >= 0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST(Sandbox, LandlockAloneRefusesFilesToo) {
  if (landlock_version() == 0) GTEST_SKIP() << "the host's kernel has no Landlock";
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!close_files_and_network()) ::_exit(not_entered);
    ::_exit(::open("/etc/passwd", O_RDONLY) >= 0 ? done : refused);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), refused);
}

TEST(Sandbox, SaysWhatTheHostHas) {
  const SandboxSupport support = sandbox_support();
  EXPECT_TRUE(support.works) << support.what;
  EXPECT_NE(support.what.find("seccomp"), std::string::npos) << support.what;
}

}  // namespace
}  // namespace vmsight::sandbox_sandbox_test
