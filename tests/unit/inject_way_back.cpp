// The way back of a borrowed thread whose tracer is killed while it makes a call for us.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <ctime>
#include <thread>

#include "inject/x86_64/remote_syscall.h"

namespace vmsight::inject_way_back_test {
namespace {

using namespace std::chrono_literals;

struct Counters {
  std::atomic<std::uint64_t> rounds;
  std::atomic<std::uint64_t> damaged;
};

/// Looks at all 32 bytes of a vector register for ever; in one piece, so that nothing else uses it.
[[noreturn]] void watch_a_register(Counters* counters) {
  alignas(32) std::array<std::uint64_t, 4> pattern{0x1111, 0x2222, 0x3333, 0x4444};
  asm volatile(
      "vmovups (%0), %%ymm7\n"
      "1: vxorps (%0), %%ymm7, %%ymm6\n"
      "vptest %%ymm6, %%ymm6\n"
      "jnz 2f\n"
      "lock incq (%1)\n"
      "jmp 1b\n"
      "2: movq $1, 8(%1)\n"
      "3: pause\n"
      "jmp 3b\n"
      :
      : "r"(pattern.data()), "r"(counters)
      : "memory", "cc", "xmm6", "xmm7");
  __builtin_unreachable();
}

/// Borrows the process for a call that takes long, and says when it begins.
void borrow_for_long(pid_t pid, int told) {
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child, nullptr);
  Tracing tracing;
  auto thread = BorrowedThread::borrow(pid, tracing);
  if (!thread) ::_exit(1);
  timespec time{.tv_sec = 0, .tv_nsec = 400'000'000};
  const iovec local{&time, sizeof(time)};
  const iovec remote{reinterpret_cast<void*>(thread->scratch().raw()), sizeof(time)};
  if (::process_vm_writev(pid, &local, 1, &remote, 1, 0) != sizeof(time)) ::_exit(2);
  if (::write(told, ".", 1) != 1) ::_exit(3);
  static_cast<void>(thread->call("sleep", SYS_nanosleep, {thread->scratch().raw(), 0}));
  ::_exit(4);
}

TEST(WayBack, PutsWholeVectorRegistersBack) {
  if (!__builtin_cpu_supports("avx")) GTEST_SKIP() << "this processor has no AVX";
  auto* counters = static_cast<Counters*>(
      ::mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t watched = ::fork();
  if (watched == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    watch_a_register(counters);
  }
  while (counters->rounds == 0) std::this_thread::sleep_for(1ms);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t tracer = ::fork();
  if (tracer == 0) borrow_for_long(watched, pipe[1]);
  char byte = 0;
  ASSERT_EQ(::read(pipe[0], &byte, 1), 1);
  std::this_thread::sleep_for(100ms);
  ::kill(tracer, SIGKILL);
  int status = 0;
  ::waitpid(tracer, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the call had ended before: " << WEXITSTATUS(status);
  const std::uint64_t then = counters->rounds;
  for (int i = 0; i < 500 && counters->rounds == then && counters->damaged == 0; ++i) {
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(counters->damaged, 0u) << "its vector registers are not what they were";
  EXPECT_GT(counters->rounds, then) << "it did not come back";
  ::kill(watched, SIGKILL);
  ::waitpid(watched, nullptr, 0);
  ::close(pipe[0]);
  ::close(pipe[1]);
  ::munmap(counters, sizeof(Counters));
}

}  // namespace
}  // namespace vmsight::inject_way_back_test
