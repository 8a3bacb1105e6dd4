#include "support/counting_vm.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <fmt/format.h>
#include <new>
#include <thread>

#include "host/process.h"

namespace vmsight::test {
namespace {

CountingVm::Shared* shared = nullptr;  // in the child

void see_signal(int) { ++shared->signals; }

[[noreturn]] void count(unsigned vcpu, ThreadNames names) {
  if (names == ThreadNames::as_qemu) {
    ::prctl(PR_SET_NAME, fmt::format("CPU {}/TCG", vcpu).c_str());
  }
  shared->vcpus[vcpu].tid = static_cast<pid_t>(::syscall(SYS_gettid));
  ++shared->started;
  while (true) {
    if (++shared->vcpus[vcpu].count % 1024 == 0) ::sched_yield();
  }
}

[[noreturn]] void be_a_vm(pid_t parent, ThreadNames names) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);  // it died before prctl
  std::signal(SIGRTMIN, see_signal);
  unsigned running = 0;
  while (true) {
    while (running < shared->wanted) {
      std::thread([vcpu = running, names] { count(vcpu, names); }).detach();
      ++running;
    }
    ::usleep(1000);
  }
}

}  // namespace

CountingVm::CountingVm(unsigned vcpus, ThreadNames names) {
  VMSIGHT_CHECK(vcpus <= max_vcpus);
  void* start =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  VMSIGHT_CHECK(start != MAP_FAILED);
  mapping_ = Mapping(start, sizeof(Shared));
  shared_ = new (start) Shared;
  shared_->wanted = vcpus;
  const pid_t parent = ::getpid();
  info_.pid = ::fork();
  VMSIGHT_CHECK(info_.pid >= 0);
  if (info_.pid == 0) {
    shared = shared_;
    be_a_vm(parent, names);
  }
  info_.name = "counting";
  info_.vcpus = vcpus;
  info_.accelerator = Accelerator::tcg;
  const auto id = identify(info_.pid);
  VMSIGHT_CHECK(id.has_value());
  info_.start_time = id->start_time;
  VMSIGHT_CHECK(comes_true([&] { return shared_->started == vcpus; }));
}

void CountingVm::plug() {
  const unsigned before = shared_->started;
  VMSIGHT_CHECK(before < max_vcpus);
  ++shared_->wanted;
  VMSIGHT_CHECK(comes_true([&] { return shared_->started > before; }));
}

bool CountingVm::counts(unsigned vcpu) const {
  const std::uint64_t before = count(vcpu);
  for (int i = 0; i < 1000; ++i) {
    if (count(vcpu) != before) return true;
    ::usleep(1000);
  }
  return false;
}

bool CountingVm::stands() const {
  std::uint64_t before = 0, after = 0;
  for (unsigned i = 0; i < vcpus(); ++i) before += count(i);
  ::usleep(20'000);
  for (unsigned i = 0; i < vcpus(); ++i) after += count(i);
  return before == after;
}

void CountingVm::end() {
  if (std::exchange(ended_, true)) return;
  ::kill(info_.pid, SIGKILL);
  ::waitpid(info_.pid, nullptr, 0);
}

Result<void> CountingVm::check_alive() const {
  // A zombie has ended, and who asks need not be its parent.
  const auto process = open_pidfd({info_.pid, info_.start_time});
  if (!ended_ && process && check_pidfd(process->get(), info_.pid)) return {};
  return ended();
}

}  // namespace vmsight::test
