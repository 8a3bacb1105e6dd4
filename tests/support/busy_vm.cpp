#include "support/busy_vm.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/clock.h"

namespace vmsight::test {
namespace {

constexpr std::uint64_t second = 1'000'000'000;

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::size_t count(const std::filesystem::path& path) {
  const auto entries = std::filesystem::directory_iterator(path);
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

Mapping shared_memory() {
  void* start =
      ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  VMSIGHT_CHECK(start != MAP_FAILED);
  return {start, page_size};
}

}  // namespace

BusyVm::BusyVm(Backing backing)
    : shared_(shared_memory()),
      control_(new (shared_.mutable_bytes().data()) Control),
      vm_(backing, {{GuestPhys(0), ram_size}},
          [control = control_](std::byte* ram) { work(*control, ram); }) {
  while (control_->main_rounds == 0 || rounds(0) == 0 || rounds(1) == 0) std::this_thread::yield();
  descriptors_ = count(fmt::format("/proc/{}/fd", vm_.info().pid));
}

void BusyVm::work(Control& control, std::byte* ram) {
  ::madvise(ram, ram_size, MADV_DONTFORK);  // as QEMU does
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < workers; ++i)
    threads.emplace_back(run_worker, std::ref(control), i, ram);
  run_main(control);
}

void BusyVm::run_worker(Control& control, unsigned worker, std::byte* ram) {
  ::pthread_setname_np(::pthread_self(), fmt::format("CPU {}/TCG", worker).c_str());
  std::byte* const mine = ram + worker * pages_each * page_size;
  for (std::uint64_t round = 1;; ++round) {
    for (std::uint64_t i = 0; i < pages_each; ++i) {
      std::memcpy(mine + i * page_size, &round, sizeof(round));
    }
    control.rounds[worker] = round;
  }
}

/// System calls as QEMU's main loop makes them; none may fail, and none may end early.
void BusyVm::run_main(Control& control) {
  const int event = ::eventfd(0, EFD_CLOEXEC);
  pollfd wait{.fd = event, .events = POLLIN};
  const timespec millisecond{.tv_nsec = 1'000'000};
  while (true) {
    const Stopwatch watch;
    errno = 0;
    if (::ppoll(&wait, 1, &millisecond, nullptr) != 0 || errno != 0) ++control.disturbed;
    if (::poll(&wait, 1, 1) != 0 || errno != 0) ++control.disturbed;
    if (::clock_nanosleep(CLOCK_MONOTONIC, 0, &millisecond, nullptr) != 0) ++control.disturbed;
    if (watch.elapsed_ns() < 3'000'000) ++control.disturbed;
    ++control.main_rounds;
  }
}

std::string BusyVm::damage() const {
  const std::string process = fmt::format("/proc/{}", vm_.info().pid);
  for (const auto& thread : std::filesystem::directory_iterator(process + "/task")) {
    const std::string status = text_of(thread.path() / "status");
    if (status.find("\nTracerPid:\t0\n") == std::string::npos) return "a thread is traced";
    if (status.find("\nState:\tT") != std::string::npos) return "a thread is stopped";
    if (!text_of(thread.path() / "children").empty()) return "it has a child";
  }
  if (count(process + "/fd") != descriptors_) return "it has other descriptors";
  const std::string smaps = text_of(process + "/smaps");
  const std::size_t ram = smaps.find(fmt::format("{:x}-", vm_.blocks()[0].host.raw()));
  const std::size_t flags = smaps.find("VmFlags:", ram);
  const std::string words = smaps.substr(flags, smaps.find('\n', flags) - flags) + " ";
  if (words.find(" dc ") == std::string::npos) return "its RAM would be in children";
  if (words.find(" uw ") != std::string::npos) return "its RAM is registered";
  if (control_->disturbed != 0) {
    return fmt::format("{} system calls were disturbed", control_->disturbed.load());
  }
  return "";
}

std::string BusyVm::damage_after_a_second() const {
  const Stopwatch watch;
  const std::uint64_t main_rounds = control_->main_rounds;
  const std::uint64_t before[workers] = {rounds(0), rounds(1)};
  std::string wrong;
  do {
    wrong = damage();
    for (unsigned i = 0; i < workers; ++i) {
      if (rounds(i) <= before[i] + 1) wrong = "a worker does not run";
    }
    if (control_->main_rounds <= main_rounds + 1) wrong = "the main thread does not run";
    std::this_thread::yield();
  } while (!wrong.empty() && watch.elapsed_ns() < second);
  return wrong;
}

void BusyVm::forgive_disturbed_calls() {
  const std::uint64_t before = control_->main_rounds;
  while (control_->main_rounds < before + 2) std::this_thread::yield();
  control_->disturbed = 0;
}

}  // namespace vmsight::test
