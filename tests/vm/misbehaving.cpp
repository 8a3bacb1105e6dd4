// misbehaving VM TECHNIQUE DEED   attaches as vmsight does, enters the sandbox, and then, while it interprets the guest's
//                                 memory, does what a taken-over vmsight would: opens a file, connects, traces ...
// misbehaving IMAGE file DEED     the same while it unpacks an image: of one that is packed
//
// Prints "refused" and exits with 0 if the deed failed; the sandbox may end it before (70); "done", 9 if it succeeded;
// "no sandbox: WHY", 3 where there is none. For sandbox.py.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "vmsight/guest.h"

using namespace vmsight;

namespace {

std::string qmp_path;

/// Of QEMU; an image has none.
pid_t pid_of(const Guest& guest) { return guest.vm ? guest.vm->info().pid : 1; }
constexpr int done = 9, no_sandbox = 3;

bool opens_a_file() {
  return ::open("/etc/shadow", O_RDONLY) >= 0 || ::open("/proc/self/environ", O_RDONLY) >= 0 ||
         ::open("/", O_RDONLY | O_DIRECTORY) >= 0;
}

bool connects_to_the_monitor() {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  qmp_path.copy(to.sun_path, sizeof to.sun_path - 1);
  return ::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
}

/// Whoever holds a connection to QEMU's monitor or gdbstub owns QEMU. Those that there are before the sandbox; in it nobody
/// can ask who is at the other end, only whether a socket is the same.
using Connections = std::map<int, ino_t>;
Connections connections_to(pid_t qemu) {
  Connections all;
  for (int fd = 3; fd < 1024; ++fd) {
    ucred peer{};
    socklen_t size = sizeof peer;
    struct stat about {};
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == qemu &&
        ::fstat(fd, &about) == 0) {
      all[fd] = about.st_ino;
    }
  }
  return all;
}
Connections connections;
bool holds_a_connection() {
  return std::any_of(connections.begin(), connections.end(), [](const auto& one) {
    struct stat about {};
    return ::fstat(one.first, &about) == 0 && about.st_ino == one.second;
  });
}

/// To guest RAM, or to a file: what is open is open for reading.
bool writes_by_a_descriptor() {
  for (int fd = 3; fd < 64; ++fd) {
    if (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED) return true;
  }
  return false;
}

bool writes_guest_memory(const Guest& guest) {
  if (!guest.vm) return false;
  const RamRange& range = guest.ram().ranges().front();
  std::uint64_t word = 0;
  const iovec from{&word, sizeof word};
  const iovec to{reinterpret_cast<void*>((range.host + 0x500).raw()), sizeof word};
  return ::process_vm_writev(pid_of(guest), &from, 1, &to, 1, 0) > 0;
}

bool makes_its_view_writable(const Guest& guest) {
  if (!guest.memory) return false;
  const std::byte* page = guest.memory->page(GuestPhys(0));
  if (page == nullptr) return false;
  auto* start = const_cast<std::byte*>(page);
  if (!guest.memory->nature().direct) return false;  // a copy of ours: to write it changes nothing
  return ::mprotect(start, 4096, PROT_READ | PROT_WRITE) == 0;
}

using Deed = std::function<bool(Guest&)>;
const std::map<std::string, Deed> deeds{
    {"open", [](Guest&) { return opens_a_file(); }},
    {"mem",
     [](Guest& guest) {
       return ::open(("/proc/" + std::to_string(pid_of(guest)) + "/mem").c_str(), O_RDWR) >= 0;
     }},
    {"connect", [](Guest&) { return connects_to_the_monitor(); }},
    {"ptrace",
     [](Guest& guest) { return ::ptrace(PTRACE_SEIZE, pid_of(guest), nullptr, nullptr) == 0; }},
    {"signal", [](Guest& guest) { return ::kill(pid_of(guest), SIGSTOP) == 0; }},
    {"read",
     [](Guest&) {
       std::uint64_t word = 0;
       const iovec into{&word, sizeof word};
       return ::process_vm_readv(1, &into, 1, &into, 1, 0) >= 0 || errno == EFAULT;
     }},
    {"execute", [](Guest&) { return ::execl("/bin/true", "true", nullptr) == 0; }},
    {"fork", [](Guest&) { return ::fork() >= 0; }},
    {"write", [](Guest& guest) { return writes_guest_memory(guest); }},
    {"map", [](Guest& guest) { return makes_its_view_writable(guest); }},
    {"holds", [](Guest&) { return holds_a_connection(); }},
    {"descriptors", [](Guest&) { return writes_by_a_descriptor(); }},
    {"input",
     [](Guest&) {
       char typed = 0;
       return ::read(STDIN_FILENO, &typed, 1) == 1;
     }},
};

int told(bool did) {
  std::puts(did ? "done" : "refused");
  return did ? done : 0;
}

/// What unpacks tells that it did, in the midst of reading the image.
Result<int> run_on_image(const std::string& path, const Deed& deed) {
  Guest nothing_yet;
  std::optional<bool> did;
  AttachOptions options{.sandbox = true};
  options.image.said = [&](std::string_view) { did = deed(nothing_yet); };
  VMSIGHT_TRY(const Guest guest, open_guest(path, options));
  if (!did) return Error{.code = ErrorCode::usage, .message = "the image is not packed"};
  return told(*did);
}

Result<int> run(const std::string& vm, const std::string& technique, const Deed& deed) {
  const AttachOptions options{.technique = technique};
  VMSIGHT_TRY(Guest guest, open_guest(vm, options));
  if (!guest.vm->info().qmp_sockets.empty()) qmp_path = guest.vm->info().qmp_sockets.front();
  VMSIGHT_TRY_VOID(open_memory(guest, options));
  connections = connections_to(pid_of(guest));
  VMSIGHT_TRY(const std::string without, enter_sandbox(guest, options));
  if (!without.empty()) {
    std::printf("no sandbox: %s\n", without.c_str());
    return no_sandbox;
  }
  VMSIGHT_TRY_VOID(find_kernel_of(guest, options));
  bool did = false;
  VMSIGHT_TRY_VOID(in_one_view(*guest.memory, [&]() -> Result<void> {  // the guest may be halted
    did = deed(guest);
    return {};
  }));
  return told(did);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 || deeds.count(argv[3]) == 0) {
    for (const auto& [name, deed] : deeds) std::printf("%s\n", name.c_str());
    return 2;
  }
  const auto mapped = survive_lost_memory();
  const Deed& deed = deeds.at(argv[3]);
  const auto status =
      std::string(argv[2]) == "file" ? run_on_image(argv[1], deed) : run(argv[1], argv[2], deed);
  std::fflush(stdout);
  if (status && mapped) return *status;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return 1;
}
