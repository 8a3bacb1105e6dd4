#include "inject/x86_64/way_back.h"

#include <cpuid.h>
#include <sys/uio.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "host/host_maps.h"
#include "host/process.h"

namespace vmsight {
namespace {

constexpr std::array<std::uint8_t, 3> syscall_ret = {0x0f, 0x05, 0xc3};
constexpr std::array<std::uint8_t, 9> sigreturn = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};

std::size_t read_code(pid_t pid, HostVirt from, std::span<std::uint8_t> into) {
  const iovec local{into.data(), into.size()};
  const iovec remote{reinterpret_cast<void*>(from.raw()), into.size()};
  const ssize_t got = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
  return got < 0 ? 0 : static_cast<std::size_t>(got);
}

template <std::size_t N>
bool is_at(pid_t pid, HostVirt where, const std::array<std::uint8_t, N>& code) {
  std::array<std::uint8_t, N> there{};
  return read_code(pid, where, there) == N && there == code;
}

/// The last answer is nearly always right again: a guard has one VM.
struct Gadgets {
  HostVirt call, restore;
};

std::optional<Gadgets> search(pid_t pid) {
  constexpr std::uint64_t enough = 4 << 20;
  const auto text = read_proc_file(pid, "maps");
  auto maps = text ? parse_maps(*text) : Result<std::vector<HostMapping>>(text.error());
  if (!maps) return std::nullopt;
  std::stable_partition(maps->begin(), maps->end(), [](const HostMapping& mapping) {
    return mapping.path.find("/libc") != std::string::npos;
  });
  std::optional<HostVirt> call, restore;
  for (const HostMapping& mapping : *maps) {
    if (!mapping.executable || mapping.writable || !mapping.readable) continue;
    std::vector<std::uint8_t> code(std::min(mapping.size(), enough));
    code.resize(read_code(pid, mapping.start, code));
    const auto find = [&](std::optional<HostVirt>& found, const auto& pattern) {
      const auto at = std::search(code.begin(), code.end(), pattern.begin(), pattern.end());
      if (!found && at != code.end()) {
        found = mapping.start + static_cast<std::uint64_t>(at - code.begin());
      }
    };
    find(call, syscall_ret);
    find(restore, sigreturn);
    if (call && restore) return Gadgets{*call, *restore};
  }
  return std::nullopt;
}

std::optional<Gadgets> gadgets_of(pid_t pid) {
  static thread_local std::optional<Gadgets> last;
  if (last && is_at(pid, last->call, syscall_ret) && is_at(pid, last->restore, sigreturn)) {
    return last;
  }
  return last = search(pid);
}

/// As the kernel would on a return to the program: a call of its own that was interrupted starts
/// again. (-ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND; with -ERESTART_RESTARTBLOCK time has
/// passed already, so that one ends early. include/linux/errno.h)
user_regs_struct as_restarted(user_regs_struct registers) {
  if (registers.orig_rax == ~0ULL) return registers;
  const auto result = static_cast<std::int64_t>(registers.rax);
  if (result == -512 || result == -513 || result == -514) {
    registers.rax = registers.orig_rax;
    registers.rip -= 2;
  } else if (result == -516) {
    registers.rax = static_cast<std::uint64_t>(-EINTR);
  }
  return registers;
}

/// What rt_sigreturn reads: struct rt_sigframe of arch/x86/include/asm/sigframe.h, whose ucontext
/// is glibc's up to the first 64 signals; behind it the state of the vector registers.
struct Frame {
  std::uint64_t restore = 0;
  std::array<std::byte, offsetof(ucontext_t, uc_sigmask) + sizeof(std::uint64_t)> context{};
};
constexpr std::size_t state_at = 320;  // of 64 bytes' alignment, as XRSTOR wants it
static_assert(sizeof(Frame) <= state_at);

/// struct _fpx_sw_bytes of arch/x86/include/uapi/asm/sigcontext.h, in bytes of the legacy area that
/// no instruction uses. ptrace has the mask of features in the first of them instead.
struct ExtendedState {
  std::uint32_t magic = 0x46505853;  // FP_XSTATE_MAGIC1
  std::uint32_t extended_size = 0;   // with the second magic number behind
  std::uint64_t features = 0;
  std::uint32_t size = 0;
  std::array<std::uint32_t, 7> reserved{};
};
constexpr std::size_t legacy_size = 512, software_bytes = 464, header_size = 64;
constexpr std::uint32_t second_magic = 0x46505845;  // FP_XSTATE_MAGIC2
static_assert(software_bytes + sizeof(ExtendedState) == legacy_size);
constexpr std::uint64_t extended_state = 1;  // UC_FP_XSTATE

/// Where the last of these components ends (CPUID leaf 0xd).
std::size_t size_of(std::uint64_t features) {
  std::size_t size = legacy_size + header_size;
  for (unsigned i = 2; i < 63; ++i) {
    if ((features >> i & 1) == 0) continue;
    unsigned bytes = 0, offset = 0, c = 0, d = 0;
    __cpuid_count(0xd, i, bytes, offset, c, d);
    size = std::max<std::size_t>(size, std::size_t{offset} + bytes);
  }
  return size;
}

/// With all that the kernel puts back; only the legacy part if there is no more. Tiles of AMX are
/// left out where they are not in use: of a process that may not use them the kernel takes no frame
/// that has room for them.
std::vector<std::byte> as_signal_state(std::span<const std::byte> state) {
  std::vector<std::byte> made(state.begin(), state.end());
  if (state.size() < legacy_size + header_size) return made;
  ExtendedState extended;
  std::uint64_t used = 0;
  std::memcpy(&extended.features, state.data() + software_bytes, sizeof(extended.features));
  std::memcpy(&used, state.data() + legacy_size, sizeof(used));  // XSTATE_BV
  constexpr std::uint64_t tile_data = 1ULL << 18;
  if ((extended.features & ~used & tile_data) != 0) {
    extended.features &= ~tile_data;
    made.resize(std::min(made.size(), size_of(extended.features)));
  }
  extended.size = static_cast<std::uint32_t>(made.size());
  extended.extended_size = extended.size + sizeof(second_magic);
  std::memcpy(made.data() + software_bytes, &extended, sizeof(extended));
  const auto magic = std::as_bytes(std::span(&second_magic, 1));
  made.insert(made.end(), magic.begin(), magic.end());
  return made;
}

ucontext_t context_of(const user_regs_struct& from, HostVirt state, bool extended) {
  const user_regs_struct r = as_restarted(from);
  ucontext_t context{};
  context.uc_flags = 6;  // UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS: ss is what it was
  if (extended) context.uc_flags |= extended_state;
  context.uc_stack.ss_flags = 0x12345;  // none that there is: the alternate stack stays as it is
  auto& to = context.uc_mcontext.gregs;
  const auto put = [&](int which, std::uint64_t value) { to[which] = static_cast<greg_t>(value); };
  put(REG_R8, r.r8), put(REG_R9, r.r9), put(REG_R10, r.r10), put(REG_R11, r.r11);
  put(REG_R12, r.r12), put(REG_R13, r.r13), put(REG_R14, r.r14), put(REG_R15, r.r15);
  put(REG_RDI, r.rdi), put(REG_RSI, r.rsi), put(REG_RBP, r.rbp), put(REG_RBX, r.rbx);
  put(REG_RDX, r.rdx), put(REG_RAX, r.rax), put(REG_RCX, r.rcx), put(REG_RSP, r.rsp);
  put(REG_RIP, r.rip), put(REG_EFL, r.eflags), put(REG_CSGSFS, r.cs | r.ss << 48);
  context.uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(state.raw());
  return context;
}

}  // namespace

std::optional<WayBack> WayBack::prepare(pid_t pid, const user_regs_struct& saved,
                                        std::span<const std::byte> state, std::uint64_t mask) {
  const auto gadgets = gadgets_of(pid);
  if (!gadgets || state.size() < legacy_size) return std::nullopt;
  constexpr std::uint64_t below = 1280;  // scratch space is between; the red zone is 128
  const std::vector<std::byte> vectors = as_signal_state(state);
  const HostVirt at((saved.rsp - below - state_at - vectors.size()) & ~63ULL);
  const ucontext_t context = context_of(saved, at + state_at, vectors.size() > legacy_size);
  Frame frame{.restore = gadgets->restore.raw()};
  std::memcpy(frame.context.data(), &context, offsetof(ucontext_t, uc_sigmask));
  std::memcpy(frame.context.data() + offsetof(ucontext_t, uc_sigmask), &mask, sizeof(mask));
  std::vector<std::byte> whole(state_at + vectors.size());
  std::memcpy(whole.data(), &frame, sizeof(frame));
  std::ranges::copy(vectors, whole.begin() + state_at);
  const iovec local{whole.data(), whole.size()};
  const iovec remote{reinterpret_cast<void*>(at.raw()), whole.size()};
  const ssize_t written = ::process_vm_writev(pid, &local, 1, &remote, 1, 0);
  if (written != static_cast<ssize_t>(whole.size())) return std::nullopt;
  return WayBack{gadgets->call, gadgets->restore, at};
}

}  // namespace vmsight
