#include "inject/write_protect.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/socket_fd.h"
#include "host/host_maps.h"
#include "host/process.h"

namespace vmsight {
namespace {

constexpr std::uint64_t wp_unpopulated = 1u << 13;  // UFFD_FEATURE_WP_UNPOPULATED, Linux 6.4
constexpr const char* device_path = "/dev/userfaultfd";

bool is_shared_memory(const RamBlock& block) {
  return block.path.starts_with("/memfd:") || block.path.starts_with("/dev/shm/") ||
         block.path.starts_with("/dev/zero");
}

/// The features of the host's userfaultfd.
Result<std::uint64_t> host_features() {
  UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  if (!fd) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("write-protect guest RAM: the host has no userfaultfd: {}",
                                        std::strerror(errno)),
                 .os_errno = errno};
  }
  uffdio_api api{.api = UFFD_API};
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) return os_error(errno, "ask for userfaultfd");
  return api.features;
}

Result<void> check_backing(const Vm& vm, std::uint64_t features) {
  if ((features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) == 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "write-protect guest RAM: the host's userfaultfd cannot write-protect",
                 .hint = "Linux 5.7 can, 5.19 also for shared memory"};
  }
  for (const RamBlock& block : vm.blocks()) {
    if (block.backing == Backing::anonymous) continue;
    if (!is_shared_memory(block)) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("write-protect RAM block {}: it is the file {}, and the "
                                          "host can only protect anonymous and shared memory",
                                          block.name, block.path)};
    }
    if ((features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM) == 0) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("write-protect RAM block {}: the host's userfaultfd "
                                          "cannot protect shared memory",
                                          block.name),
                   .hint = "Linux 5.19 can"};
    }
  }
  return {};
}

/// The part of smaps that tells of the mapping at this address.
std::string_view smaps_entry(std::string_view smaps, HostVirt start) {
  const std::string key = fmt::format("\n{:x}-", start.raw());
  std::size_t at = smaps.find(key);
  if (at == std::string_view::npos) at = smaps.starts_with(key.substr(1)) ? 0 : smaps.size();
  const std::size_t flags = smaps.find("VmFlags:", at);
  const std::size_t end = flags == std::string_view::npos ? flags : smaps.find('\n', flags);
  return smaps.substr(at, end == std::string_view::npos ? end : end - at);
}

/// proc_pid_smaps(5): um, uw and ui are userfaultfd registrations; ht is hugetlbfs.
Result<void> check_mappings(const Vm& vm) {
  VMSIGHT_TRY(const std::string smaps, read_proc_file(vm.info().pid, "smaps"));
  for (const RamBlock& block : vm.blocks()) {
    const std::string_view entry = smaps_entry(smaps, block.host);
    const std::size_t flags = entry.find("VmFlags:");
    const std::string words = std::string(entry.substr(std::min(flags, entry.size()))) + " ";
    const auto has = [&](const char* word) { return words.find(word) != std::string::npos; };
    if (has(" ht ")) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("write-protect RAM block {}: it has huge pages of "
                                          "hugetlbfs",
                                          block.name)};
    }
    if (has(" uw ") || has(" um ") || has(" ui ")) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("write-protect RAM block {}: another userfaultfd has it",
                                          block.name),
                   .hint = "a background snapshot, a postcopy migration, or another vmsight?"};
    }
  }
  return {};
}

/// Whether the process may call userfaultfd() for faults of the kernel too.
Result<void> check_right_to_create(pid_t pid) {
  VMSIGHT_TRY(const std::string status, read_proc_file(pid, "status"));
  const auto field = parse_status_field(status, "CapEff");
  const std::uint64_t effective =
      field ? std::strtoull(std::string(*field).c_str(), nullptr, 16) : 0;
  constexpr unsigned cap_sys_ptrace = 19;
  if ((effective >> cap_sys_ptrace & 1) != 0) return {};
  const UniqueFd sysctl(::open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY | O_CLOEXEC));
  char value = '0';
  if (sysctl && ::read(sysctl.get(), &value, 1) == 1 && value == '1') return {};
  const UniqueFd device(::open(device_path, O_RDWR | O_CLOEXEC));
  if (device) return {};
  return Error{
      .code = ErrorCode::permission,
      .message = fmt::format("write-protect guest RAM: process {} may not use userfaultfd, "
                             "and {}: {}",
                             pid, device_path, std::strerror(errno)),
      .hint =
          "run vmsight as root on Linux 6.1 or later, or set "
          "vm.unprivileged_userfaultfd=1",
      .os_errno = errno};
}

}  // namespace

Result<WriteProtectSupport> check_write_protect(const Vm& vm) {
  VMSIGHT_TRY(const std::uint64_t features, host_features());
  VMSIGHT_TRY_VOID(check_backing(vm, features));
  VMSIGHT_TRY_VOID(check_mappings(vm));
  const auto passed_through = has_descriptor(
      vm.info().pid, [](std::string_view link) { return link.starts_with("/dev/vfio/"); });
  if (passed_through.value_or(false)) {
    return Error{.code = ErrorCode::unsupported,
                 .message =
                     "write-protect guest RAM: a device of the host is passed through to "
                     "the guest (VFIO), and its writes cannot be caught"};
  }
  VMSIGHT_TRY_VOID(check_right_to_create(vm.info().pid));
  VMSIGHT_TRY_VOID(BorrowedThread::check(vm.info().pid));
  return WriteProtectSupport{.unpopulated = (features & wp_unpopulated) != 0};
}

namespace {

constexpr std::uint64_t creation_flags = O_CLOEXEC | O_NONBLOCK;

/// Fetches a descriptor of the process; its own stays open.
Result<UniqueFd> fetch(int pidfd, std::uint64_t number) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, number, 0)));
  if (!fd) return os_error(errno, "fetch a descriptor of the VM's process");
  return fd;
}

/// Descriptors inside the process, closed again whatever happens.
class RemoteFds {
 public:
  explicit RemoteFds(BorrowedThread& thread) : thread_(thread) {}
  RemoteFds(const RemoteFds&) = delete;
  RemoteFds& operator=(const RemoteFds&) = delete;
  ~RemoteFds() { static_cast<void>(close()); }
  void add(std::uint64_t number) { numbers_.push_back(number); }
  Result<void> close() {
    while (!numbers_.empty()) {
      auto closed = thread_.call("close", SYS_close, {numbers_.back()});
      if (!closed) return std::move(closed).error();
      numbers_.pop_back();
    }
    return {};
  }

 private:
  BorrowedThread& thread_;
  std::vector<std::uint64_t> numbers_;
};

Result<void> write_process(pid_t pid, HostVirt to, std::span<const std::byte> bytes) {
  const iovec local{const_cast<std::byte*>(bytes.data()), bytes.size()};
  const iovec remote{reinterpret_cast<void*>(to.raw()), bytes.size()};
  if (::process_vm_writev(pid, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes.size())) {
    return {};
  }
  return os_error(errno, "write to the stack of the VM's process");
}

template <typename T>
Result<T> read_object(pid_t pid, HostVirt from) {
  T value{};
  const iovec local{&value, sizeof(value)};
  const iovec remote{reinterpret_cast<void*>(from.raw()), sizeof(value)};
  if (::process_vm_readv(pid, &local, 1, &remote, 1, 0) == sizeof(value)) return value;
  return os_error(errno, "read the stack of the VM's process");
}

/// What recvmsg() needs, in the scratch memory of the borrowed thread.
struct Message {
  msghdr header{};
  iovec data{};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  std::byte byte{};
};

/// Lets the process receive the descriptor that waits on its socket; its number there.
Result<std::uint64_t> receive_inside(pid_t pid, BorrowedThread& thread, std::uint64_t socket) {
  const HostVirt at = thread.scratch();
  const auto inside = [&](std::size_t offset) {
    return reinterpret_cast<void*>((at + offset).raw());
  };
  Message message;
  message.data = {inside(offsetof(Message, byte)), 1};
  message.header.msg_iov = static_cast<iovec*>(inside(offsetof(Message, data)));
  message.header.msg_iovlen = 1;
  message.header.msg_control = inside(offsetof(Message, control));
  message.header.msg_controllen = message.control.size();
  VMSIGHT_TRY_VOID(write_process(pid, at, std::as_bytes(std::span(&message, 1))));
  VMSIGHT_TRY(
      const std::uint64_t got,
      thread.call("recvmsg", SYS_recvmsg, {socket, at.raw(), MSG_CMSG_CLOEXEC | MSG_DONTWAIT}));
  static_cast<void>(got);
  VMSIGHT_TRY(const Message received, read_object<Message>(pid, at));
  int number = -1;
  if (received.header.msg_controllen >= CMSG_LEN(sizeof(int))) {
    std::memcpy(&number, received.control.data() + CMSG_LEN(0), sizeof(number));
  }
  if (number < 0) {
    return Error{.code = ErrorCode::permission,
                 .message = "the VM's process was not given a descriptor of /dev/userfaultfd",
                 .hint = "a security module (SELinux, AppArmor) may forbid it"};
  }
  return static_cast<std::uint64_t>(number);
}

/// Passes our descriptor of /dev/userfaultfd to the process, and lets it make a userfaultfd by it.
Result<std::uint64_t> create_by_device(pid_t pid, int pidfd, BorrowedThread& thread,
                                       RemoteFds& opened) {
  const UniqueFd device(::open(device_path, O_RDWR | O_CLOEXEC));
  if (!device) return os_error(errno, fmt::format("open {}", device_path));
  const HostVirt at = thread.scratch();
  // The place is written first, so that a failure to write it costs no descriptors.
  VMSIGHT_TRY_VOID(write_process(pid, at, std::as_bytes(std::span<const Message>({Message{}}))));
  VMSIGHT_TRY(const std::uint64_t made,
              thread.call("socketpair", SYS_socketpair,
                          {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, at.raw()}));
  static_cast<void>(made);
  using Pair = std::array<int, 2>;
  VMSIGHT_TRY(const Pair sockets, read_object<Pair>(pid, at));
  for (const int socket : sockets) opened.add(static_cast<std::uint64_t>(socket));
  VMSIGHT_TRY(const UniqueFd ours, fetch(pidfd, static_cast<std::uint64_t>(sockets[0])));
  constexpr std::array<std::byte, 1> any{};
  if (send_with_fd(ours.get(), any, device.get()) != 1) {
    return os_error(errno, "pass a descriptor to the VM's process");
  }
  VMSIGHT_TRY(const std::uint64_t number,
              receive_inside(pid, thread, static_cast<std::uint64_t>(sockets[1])));
  opened.add(number);
  return thread.call("USERFAULTFD_IOC_NEW", SYS_ioctl,
                     {number, USERFAULTFD_IOC_NEW, creation_flags});
}

/// Makes a userfaultfd inside the process and takes it out.
Result<UniqueFd> inject(pid_t pid, Tracing& tracing) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return os_error(errno, fmt::format("open a pidfd of process {}", pid));
  VMSIGHT_TRY(BorrowedThread thread, BorrowedThread::borrow(pid, tracing));
  UniqueFd fd;
  {
    RemoteFds opened(thread);
    Result<std::uint64_t> number = thread.call("userfaultfd", SYS_userfaultfd, {creation_flags});
    if (!number && number.error().os_errno == EPERM) {
      number = create_by_device(pid, pidfd.get(), thread, opened);
    }
    if (!number) return std::move(number).error();
    opened.add(*number);
    VMSIGHT_TRY(fd, fetch(pidfd.get(), *number));
    // With a copy of it in QEMU, our end would not be its end: threads could wait for ever.
    VMSIGHT_TRY_VOID(opened.close());
  }
  VMSIGHT_TRY_VOID(thread.give_back());
  return fd;
}

}  // namespace

Result<WriteProtect> WriteProtect::open(pid_t pid, std::span<const Run> runs, bool unpopulated,
                                        Tracing& tracing) {
  WriteProtect protect;
  VMSIGHT_TRY(protect.fd_, inject(pid, tracing));
  protect.runs_.assign(runs.begin(), runs.end());
  uffdio_api api{.api = UFFD_API,
                 .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                             (unpopulated ? wp_unpopulated : 0)};
  if (::ioctl(protect.fd(), UFFDIO_API, &api) != 0) {
    return os_error(errno, "set up the userfaultfd of the VM's process");
  }
  for (const Run& run : runs) {
    uffdio_register registration{.range = {run.start.raw(), run.size},
                                 .mode = UFFDIO_REGISTER_MODE_WP};
    if (::ioctl(protect.fd(), UFFDIO_REGISTER, &registration) == 0) continue;
    Error error = os_error(errno, fmt::format("register guest RAM at {}", run.start));
    if (error.os_errno == EBUSY) error.message += ": another userfaultfd has it";
    return error;
  }
  return protect;
}

Result<void> WriteProtect::set(HostVirt start, std::uint64_t size, std::uint64_t mode) {
  while (true) {
    uffdio_writeprotect range{.range = {start.raw(), size}, .mode = mode};
    if (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &range) == 0) return {};
    if (errno != EAGAIN && errno != EINTR) break;  // EAGAIN: its mappings are just being changed
  }
  return os_error(errno, fmt::format("write-protect guest RAM at {}", start));
}

Result<void> WriteProtect::protect() {
  for (const Run& run : runs_) {
    VMSIGHT_TRY_VOID(set(run.start, run.size, UFFDIO_WRITEPROTECT_MODE_WP));
  }
  return {};
}

Result<void> WriteProtect::allow_all() {
  for (const Run& run : runs_) VMSIGHT_TRY_VOID(set(run.start, run.size, 0));
  return {};
}

Result<void> WriteProtect::allow(HostVirt page) { return set(page, page_size, 0); }

Result<std::size_t> WriteProtect::waiting(std::span<HostVirt> pages) {
  std::array<uffd_msg, 32> messages;
  const std::size_t most = std::min(messages.size(), pages.size());
  const ssize_t got = ::read(fd_.get(), messages.data(), most * sizeof(uffd_msg));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return std::size_t{0};
  if (got < 0) return os_error(errno, "read the userfaultfd");
  std::size_t count = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(got) / sizeof(uffd_msg); ++i) {
    if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
    pages[count++] = HostVirt(messages[i].arg.pagefault.address).page();
  }
  return count;
}

}  // namespace vmsight
