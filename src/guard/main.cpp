// vmsight-guard SERVICE: started by vmsight and by users of libvmsight, never by hand. See
// undo/guard.h for what it is, and service.h for what it does.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/socket_fd.h"
#include "guard/service.h"

namespace vmsight {
namespace {

using nlohmann::json;

struct ServiceName {
  std::string_view name;
  MakeService make;
};
constexpr std::array<ServiceName, 6> services{{{"halt", make_halt_service},
                                               {"uffd", make_uffd_service},
                                               {"fork", make_fork_service},
                                               {"patch", make_patch_service},
                                               {"monitor", make_monitor_service},
                                               {"undo", make_undo_service}}};

template <std::size_t N>
void put(std::array<char, N>& into, const std::string& text) {
  std::memcpy(into.data(), text.data(), std::min(text.size(), N - 1));
}

GuardAnswer to_answer(const Result<std::uint64_t>& result) {
  GuardAnswer answer{.ok = result.has_value()};
  if (result) {
    answer.value = *result;
    return answer;
  }
  answer.code = result.error().code;
  answer.os_errno = result.error().os_errno;
  put(answer.message, result.error().message);
  put(answer.hint, result.error().hint);
  return answer;
}

/// A memfd that its sender has sealed.
Result<json> read_payload(int memory) {
  const Error bad{.code = ErrorCode::bad_data, .message = "ask the guard: not a payload"};
  struct stat info {};
  constexpr int seals = F_SEAL_SHRINK | F_SEAL_WRITE;
  const int has = ::fcntl(memory, F_GET_SEALS);  // -1: it is no memfd
  if (::fstat(memory, &info) != 0 || info.st_size < 0 ||
      static_cast<std::size_t>(info.st_size) > max_guard_payload || has < 0 ||
      (has & seals) != seals) {
    return bad;
  }
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  if (::pread(memory, text.data(), text.size(), 0) != info.st_size) return bad;
  json payload = json::parse(text, nullptr, false);
  if (payload.is_discarded()) return bad;
  return payload;
}

enum class Received { question, nothing, closed };

Received receive(int control, GuardMessage& message, UniqueFd& memory) {
  const auto into = std::as_writable_bytes(std::span(&message, 1));
  const ssize_t got = receive_with_fd(control, into, memory);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Received::nothing;
  return got == sizeof message ? Received::question : Received::closed;
}

Result<std::uint64_t> serve(Service& service, const GuardMessage& message, const UniqueFd& memory) {
  GuardQuestion question{.request = message.request, .argument = message.argument, .payload = {}};
  if (message.payload_size != 0) {
    VMSIGHT_TRY(question.payload, read_payload(memory.get()));
  }
  return service.serve(question);
}

/// One question; false if there is nobody to ask any more, or nothing more to do.
bool serve_one(Service& service) {
  GuardMessage message;
  UniqueFd memory;
  switch (receive(guard_control_fd, message, memory)) {
    case Received::nothing:
      return true;
    case Received::closed:
      return false;
    case Received::question:
      break;
  }
  const GuardAnswer answer = to_answer(serve(service, message, memory));
  ::send(guard_control_fd, &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
  return !service.must_end();
}

int time_left(const Service& service) {
  const auto deadline = service.deadline();
  if (!deadline) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - GuardClock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
}

/// How long it may wait for the next event. After a question it looks again and again for a while, as
/// to be woken takes long: the next one is to resume the guest, or, of views in a row, to halt it.
int patience(const Service& service, GuardClock::time_point last_question) {
  constexpr std::chrono::microseconds attentive_halted{1000};
  constexpr std::chrono::microseconds attentive{100};
  const auto passed = GuardClock::now() - last_question;
  return passed < (service.deadline() ? attentive_halted : attentive) ? 0 : time_left(service);
}

void serve_all(Service& service, int vm) {
  std::vector<pollfd> events;
  auto last_question = GuardClock::now();
  while (true) {
    events = {{.fd = guard_control_fd, .events = POLLIN, .revents = 0},
              {.fd = guard_owner_fd, .events = POLLIN, .revents = 0},
              {.fd = vm, .events = POLLIN, .revents = 0}};
    service.watch(events);
    const int ready = ::poll(events.data(), events.size(), patience(service, last_question));
    if (ready < 0 && errno != EINTR) return;
    if (time_left(service) == 0) service.on_deadline();
    if (ready == 0) ::sched_yield();
    if (ready <= 0) continue;
    if (events[1].revents != 0 || events[2].revents != 0) {
      // What was asked before the VM ended has its answer; for an owner that is gone nothing is begun.
      if (events[0].revents != 0 && events[1].revents == 0) serve_one(service);
      return;
    }
    const bool any = std::any_of(events.begin() + 3, events.end(),
                                 [](const pollfd& event) { return event.revents != 0; });
    if (any && !service.on_events()) return;
    if (events[0].revents == 0) continue;
    if (!serve_one(service)) return;
    last_question = GuardClock::now();
  }
}

/// A host that is short of memory should kill its owner, not the process that holds on to QEMU.
void spare_from_oom_killer() {
  const UniqueFd fd(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd) static_cast<void>(!::write(fd.get(), "-1000", 5));
}

void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::signal(SIGCHLD, SIG_DFL);  // an ignored one would not wake us
}

Result<ServiceSetup> read_setup() {
  ServiceSetup setup;
  VMSIGHT_TRY(setup.config, read_payload(guard_setup_fd));
  ::close(guard_setup_fd);
  const json vm = setup.config.is_object() ? setup.config.value("vm", json()) : json();
  const json pid = vm.is_object() ? vm.value("pid", json()) : json();
  const json start = vm.is_object() ? vm.value("start_time", json()) : json();
  if (!pid.is_number_unsigned() || !start.is_number_unsigned()) return unknown_request();
  setup.vm = {pid.get<pid_t>(), start.get<std::uint64_t>()};
  VMSIGHT_TRY(setup.owner, identify(::getppid()));
  for (int fd = guard_extra_fd; ::fcntl(fd, F_GETFD) >= 0; ++fd) setup.descriptors.emplace_back(fd);
  return setup;
}

/// What cannot begin says why, to the first question.
void refuse(const Error& why) {
  pollfd event{.fd = guard_control_fd, .events = POLLIN, .revents = 0};
  constexpr int patience_ms = 10'000;
  if (::poll(&event, 1, patience_ms) <= 0) return;
  const GuardAnswer answer = to_answer(why);
  ::send(guard_control_fd, &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
}

int run(std::string_view name) {
  const auto service_name = std::find_if(services.begin(), services.end(),
                                         [&](const ServiceName& s) { return s.name == name; });
  pollfd owner{.fd = guard_owner_fd, .events = POLLIN, .revents = 0};
  if (service_name == services.end() || ::fcntl(guard_control_fd, F_GETFD) < 0 ||
      ::fcntl(guard_setup_fd, F_GETFD) < 0 || ::poll(&owner, 1, 0) != 0) {
    std::fputs("vmsight-guard: vmsight starts this program itself\n", stderr);
    return 2;
  }
  auto setup = read_setup();
  if (!setup) return 1;
  auto vm = open_pidfd(setup->vm);
  // Something may be left on the host of a VM that has ended.
  if (!vm && vm.error().code == ErrorCode::vm_gone && name == "undo") vm = UniqueFd();
  const auto service =
      vm ? service_name->make(*std::move(setup)) : Result<std::unique_ptr<Service>>(vm.error());
  if (!service) {
    refuse(service.error());
    return 1;
  }
  serve_all(**service, vm->get());
  (*service)->end();
  return 0;
}

}  // namespace
}  // namespace vmsight

int main(int count, char** words) {
  vmsight::block_signals();
  vmsight::spare_from_oom_killer();
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // short pauses must be short
  return vmsight::run(count == 2 ? words[1] : "");
}
