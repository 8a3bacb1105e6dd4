#include "support/child_vm.h"

#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <csignal>

#include "host/process.h"

namespace vmsight::test {
namespace {

[[noreturn]] void be_a_vm(pid_t parent, std::byte* ram,
                          const std::function<void(std::byte*)>& work) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);  // it died before prctl
  if (work) work(ram);
  while (true) ::pause();
}

}  // namespace

ChildVm::ChildVm(Backing backing, const std::vector<ChildRange>& ranges,
                 const std::function<void(std::byte* ram)>& work) {
  std::uint64_t size = 0;
  for (const ChildRange& range : ranges) size += range.size;
  if (backing != Backing::anonymous) {
    file_ = UniqueFd(::memfd_create("child-ram", MFD_CLOEXEC));
    VMSIGHT_CHECK(file_ && ::ftruncate(file_.get(), static_cast<off_t>(size)) == 0);
  }
  const int flags = backing == Backing::shared_file ? MAP_SHARED : MAP_PRIVATE;
  void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       flags | MAP_NORESERVE | (file_ ? 0 : MAP_ANONYMOUS), file_.get(), 0);
  VMSIGHT_CHECK(start != MAP_FAILED);
  ::madvise(start, size, MADV_NOHUGEPAGE);  // tests count populated pages
  mapping_ = Mapping(start, size);

  const HostVirt host(reinterpret_cast<std::uint64_t>(start));
  RamBlock block{.name = "child.ram", .size = size, .host = host, .backing = backing};
  if (file_) {
    struct stat st {};
    VMSIGHT_CHECK(::fstat(file_.get(), &st) == 0);
    block.device = st.st_dev;
    block.inode = st.st_ino;
    block.path = "/memfd:child-ram (deleted)";
  }
  blocks_.push_back(block);
  std::vector<RamRange> all;
  std::uint64_t offset = 0;
  for (const ChildRange& range : ranges) {
    all.push_back({range.start, range.size, block.name, offset, host + offset});
    offset += range.size;
  }
  ram_ = *RamMap::from(std::move(all));

  const pid_t parent = ::getpid();
  info_.pid = ::fork();
  VMSIGHT_CHECK(info_.pid >= 0);
  if (info_.pid == 0) be_a_vm(parent, static_cast<std::byte*>(start), work);
  const auto id = identify(info_.pid);
  VMSIGHT_CHECK(id.has_value());
  info_.start_time = id->start_time;
  info_.name = "child";
  info_.memory_bytes = size;
}

void ChildVm::poke(GuestPhys to, std::span<const std::byte> bytes) {
  const RamRange* range = ram_.find(to);
  VMSIGHT_CHECK(range != nullptr);
  const iovec local{const_cast<std::byte*>(bytes.data()), bytes.size()};
  const HostVirt at = range->host + (to - range->start);
  const iovec remote{reinterpret_cast<void*>(at.raw()), bytes.size()};
  VMSIGHT_CHECK(::process_vm_writev(info_.pid, &local, 1, &remote, 1, 0) ==
                static_cast<ssize_t>(bytes.size()));
}

void ChildVm::end() {
  if (ended_) return;
  ended_ = true;
  ::kill(info_.pid, SIGKILL);
  ::waitpid(info_.pid, nullptr, 0);
}

std::uint64_t ChildVm::file_blocks() const {
  struct stat st {};
  VMSIGHT_CHECK(::fstat(file_.get(), &st) == 0);
  return static_cast<std::uint64_t>(st.st_blocks);
}

Result<void> ChildVm::check_alive() const {
  if (!ended_) return {};
  return ended();
}

}  // namespace vmsight::test
