#include "study/host_usage.h"

#include <sys/resource.h>
#include <unistd.h>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>

#include "host/process.h"

namespace vmsight {
namespace {

constexpr auto sample_interval = std::chrono::milliseconds(20);

std::uint64_t to_ns(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_usec) * 1000;
}

std::uint64_t usage_ns(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  return to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
}

/// The whole process by its CPU clock: exact, and threads that ended are counted in.
Result<std::uint64_t> process_ns(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) {
    return Error{.code = ErrorCode::vm_gone,
                 .message = fmt::format("read the CPU time of process {}: it has ended", pid)};
  }
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::uint64_t status_kib(pid_t pid, std::string_view field) {
  const auto status = read_proc_file(pid, "status");
  return status ? parse_status_kib(*status, field).value_or(0) : 0;
}

}  // namespace

std::optional<std::uint64_t> parse_status_kib(std::string_view status, std::string_view field) {
  const auto value = parse_status_field(status, field);
  return value ? parse_number(*value) : std::nullopt;
}

std::optional<std::uint64_t> parse_schedstat(std::string_view text) { return parse_number(text); }

Result<CpuTimes> CpuMeter::read() const {
  CpuTimes times;
  times.own_ns = usage_ns(RUSAGE_SELF) + usage_ns(RUSAGE_CHILDREN);
  VMSIGHT_TRY(times.qemu_ns, process_ns(qemu_));
  for (const pid_t tid : vcpus_) {
    const auto text = read_proc_file(qemu_, fmt::format("task/{}/schedstat", tid));
    if (text) times.vcpu_ns += parse_schedstat(*text).value_or(0);
  }
  return times;
}

MemoryMeter::MemoryMeter(pid_t qemu) : qemu_(qemu), qemu_start_(status_kib(qemu, "VmRSS")) {
  sample();
  thread_ = std::jthread([this](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, stop, sample_interval, [&] { return stop.stop_requested(); })) {
      sample();
    }
  });
}

MemoryMeter::~MemoryMeter() = default;

std::uint64_t MemoryMeter::qemu_growth_kib() const {
  return qemu_peak_ > qemu_start_ ? qemu_peak_ - qemu_start_ : 0;
}

void MemoryMeter::sample() {
  own_peak_ = std::max(own_peak_.load(), status_kib(::getpid(), "RssAnon"));
  qemu_peak_ = std::max(qemu_peak_.load(), status_kib(qemu_, "VmRSS"));
}

}  // namespace vmsight
