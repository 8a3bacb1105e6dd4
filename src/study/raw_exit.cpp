#include "study/raw_exit.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "vmsight/address.h"

namespace vmsight {
namespace {

constexpr std::uint64_t code_at = 0x1000;
// again: out %al, $0xe7; jmp again. No device is there; nothing is emulated.
constexpr unsigned char code[] = {0xe6, 0xe7, 0xeb, 0xfc};

Error explain(int error, std::string_view action) {
  Error why = os_error(error, std::string(action));
  if (error == EACCES || error == EPERM) {
    why.code = ErrorCode::permission;
    why.hint = "run as root, or as a member of the group kvm";
  }
  return why;
}

}  // namespace

Result<RawExit> RawExit::open() {
  RawExit raw;
  raw.kvm_ = UniqueFd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!raw.kvm_) return explain(errno, "open /dev/kvm");
  VMSIGHT_TRY_VOID(raw.set_up());
  VMSIGHT_TRY_VOID(raw.set_registers());
  return raw;
}

Result<void> RawExit::set_up() {
  if (::ioctl(kvm_.get(), KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "measure an exit: /dev/kvm is none of KVM's"};
  }
  vm_ = UniqueFd(::ioctl(kvm_.get(), KVM_CREATE_VM, 0));
  if (!vm_) return explain(errno, "make a VM");
  void* page =
      ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return explain(errno, "map a page");
  page_ = Mapping(page, page_size);
  std::memcpy(page, code, sizeof(code));
  kvm_userspace_memory_region region{.guest_phys_addr = code_at, .memory_size = page_size};
  region.userspace_addr = reinterpret_cast<std::uint64_t>(page);
  if (::ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0)
    return explain(errno, "give a VM memory");
  vcpu_ = UniqueFd(::ioctl(vm_.get(), KVM_CREATE_VCPU, 0));
  if (!vcpu_) return explain(errno, "make a vCPU");
  const int size = ::ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < static_cast<int>(sizeof(kvm_run)))
    return explain(errno, "ask KVM for the size of a vCPU's page");
  void* run = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                     vcpu_.get(), 0);
  if (run == MAP_FAILED) return explain(errno, "map a vCPU's page");
  run_ = Mapping(run, static_cast<std::size_t>(size));
  return {};
}

/// Real mode, with its code segment at 0.
Result<void> RawExit::set_registers() {
  kvm_sregs system{};
  if (::ioctl(vcpu_.get(), KVM_GET_SREGS, &system) != 0)
    return explain(errno, "read a vCPU's registers");
  system.cs.base = 0;
  system.cs.selector = 0;
  if (::ioctl(vcpu_.get(), KVM_SET_SREGS, &system) != 0)
    return explain(errno, "set a vCPU's registers");
  kvm_regs registers{};
  registers.rip = code_at;
  registers.rflags = 2;
  if (::ioctl(vcpu_.get(), KVM_SET_REGS, &registers) != 0)
    return explain(errno, "set a vCPU's registers");
  return {};
}

Result<std::uint64_t> RawExit::run(unsigned exits) {
  const auto* run = reinterpret_cast<const volatile kvm_run*>(run_.bytes().data());
  const Stopwatch watch;
  for (unsigned done = 0; done < exits;) {
    if (::ioctl(vcpu_.get(), KVM_RUN, 0) != 0) {
      if (errno == EINTR) continue;
      return explain(errno, "run a vCPU");
    }
    if (run->exit_reason != KVM_EXIT_IO) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("measure an exit: the vCPU left for reason {}",
                                          std::uint32_t{run->exit_reason})};
    }
    ++done;
  }
  return watch.elapsed_ns();
}

}  // namespace vmsight
