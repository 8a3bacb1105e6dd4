#include "view/process_reads.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "view/cached_memory.h"
#include "view/ram_files.h"
#include "view/ram_pieces.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

/// Adds a piece to an iovec list; joins it to the last one if they touch.
void append_iovec(std::vector<iovec>& list, std::uint64_t address, std::size_t size) {
  if (!list.empty()) {
    iovec& last = list.back();
    if (reinterpret_cast<std::uint64_t>(last.iov_base) + last.iov_len == address) {
      last.iov_len += size;
      return;
    }
  }
  list.push_back({reinterpret_cast<void*>(address), size});
}

}  // namespace

Result<std::unique_ptr<ProcessReads>> ProcessReads::open(const Vm& vm) {
  std::unique_ptr<ProcessReads> source(new ProcessReads(vm));
  if (vm.ram().ranges().empty()) {
    return Error{.code = ErrorCode::unsupported, .message = "read guest RAM: its place is unknown"};
  }
  VMSIGHT_TRY_VOID(vm.check_alive());
  VMSIGHT_TRY_VOID(source->check_rights());
  VMSIGHT_TRY(source->files_, open_ram_files(vm, nullptr));
  VMSIGHT_TRY_VOID(source->read_from(vm.info().pid));
  return source;
}

Result<void> ProcessReads::read_from(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/pagemap", pid);
  UniqueFd pagemap(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap) return os_error(errno, "open " + path);
  pagemap_ = std::move(pagemap);
  pid_ = pid;
  return {};
}

/// Rights are checked before the address is: a read of address 0 tells them and, unlike a read of
/// guest RAM, cannot allocate a page there.
Result<void> ProcessReads::check_rights() const {
  std::byte nothing{};
  const iovec local{&nothing, 1};
  const iovec remote{nullptr, 1};
  if (::process_vm_readv(pid_, &local, 1, &remote, 1, 0) < 0 && errno != EFAULT) {
    return read_error(errno);
  }
  return {};
}

HostVirt ProcessReads::host(GuestPhys address) {
  if (last_range_ == nullptr || address - last_range_->start >= last_range_->size) {
    last_range_ = vm_.ram().find(address);
    VMSIGHT_CHECK(last_range_ != nullptr);
  }
  return last_range_->host + (address - last_range_->start);
}

Error ProcessReads::read_error(int err) const {
  Error error = os_error(err, fmt::format("read memory of process {}", pid_));
  if (err == ESRCH) error.message = fmt::format("the VM's process {} has ended", pid_);
  if (err == EPERM) {
    error.hint =
        "run as root or as the user of the QEMU process; with Yama "
        "(kernel.yama.ptrace_scope > 0) CAP_SYS_PTRACE is needed";
  }
  return error;
}

Result<void> ProcessReads::read(std::span<FreshRead> reads) {
  for (FreshRead& read : reads) read.ok = false;
  while (!reads.empty()) {
    VMSIGHT_TRY(std::size_t done, transfer(reads));
    reads = reads.subspan(done);
    if (done > 0 || reads.empty()) continue;
    // Nothing came. The first of several may only share a run with the one that faults: alone
    // it shows which it is.
    if (reads.size() > 1) {
      VMSIGHT_TRY(std::size_t alone, transfer(reads.first(1)));
      static_cast<void>(alone);
    }
    reads = reads.subspan(1);
  }
  return {};
}

/// One call for as many reads as fit; returns how many of them are done, from the first on.
Result<std::size_t> ProcessReads::transfer(std::span<FreshRead> reads) {
  local_.clear();
  remote_.clear();
  std::size_t count = 0;
  for (; count < reads.size() && local_.size() < IOV_MAX && remote_.size() < IOV_MAX; ++count) {
    const FreshRead& read = reads[count];
    append_iovec(local_, reinterpret_cast<std::uint64_t>(read.into.data()), read.into.size());
    append_iovec(remote_, host(read.from).raw(), read.into.size());
  }
  ++calls_;
  const ssize_t got =
      ::process_vm_readv(pid_, local_.data(), local_.size(), remote_.data(), remote_.size(), 0);
  if (got < 0 && errno != EFAULT) return read_error(errno);
  std::size_t left = got < 0 ? 0 : static_cast<std::size_t>(got);
  std::size_t done = 0;
  while (done < count && reads[done].into.size() <= left) {
    left -= reads[done].into.size();
    reads[done++].ok = true;
  }
  return done;
}

Result<void> ProcessReads::scan(GuestPhys from, std::span<std::byte> into) {
  return for_each_ram_piece(vm_.ram(), from, into, into.size(),
                            [&](const RamRange& range, GuestPhys at, std::span<std::byte> piece) {
                              return files_.find(at) != nullptr ? files_.scan(at, piece)
                                                                : scan_process(range, at, piece);
                            });
}

/// RAM that no file of ours shows: anonymous memory gives zeros for holes and stays as it is,
/// but a private mapping of a memfd would be allocated, so only pages that are there are read.
Result<void> ProcessReads::scan_process(const RamRange& range, GuestPhys from,
                                        std::span<std::byte> into) {
  const RamBlock* block = block_of(vm_, range);
  if (block == nullptr || block->backing == Backing::anonymous) return copy(range, from, into);
  std::fill(into.begin(), into.end(), std::byte{0});
  VMSIGHT_TRY(const std::vector<PhysRange> runs, present(range, from, into.size()));
  for (const PhysRange& run : runs) {
    const GuestPhys start = std::max(run.start, from);
    const GuestPhys end = std::min(run.start + run.size, from + into.size());
    VMSIGHT_TRY_VOID(copy(range, start, into.subspan(start - from, end - start)));
  }
  return {};
}

Result<void> ProcessReads::copy(const RamRange& range, GuestPhys from, std::span<std::byte> into) {
  while (!into.empty()) {
    const iovec local{into.data(), into.size()};
    const HostVirt at = range.host + (from - range.start);
    const iovec remote{reinterpret_cast<void*>(at.raw()), into.size()};
    ++calls_;
    const ssize_t got = ::process_vm_readv(pid_, &local, 1, &remote, 1, 0);
    if (got < 0 && errno != EFAULT) return read_error(errno);
    if (got <= 0) {
      return Error{
          .code = ErrorCode::fault,
          .message = fmt::format("read {}: {} is not readable in process {}", from, at, pid_),
          .address = from.raw()};
    }
    into = into.subspan(static_cast<std::size_t>(got));
    from = from + static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<std::vector<PhysRange>> ProcessReads::populated() {
  std::vector<PhysRange> found;
  for (const RamRange& range : vm_.ram().ranges()) {
    if (const FileRun* run = files_.find(range.start)) {
      VMSIGHT_TRY_VOID(files_.populated_in(*run, found));
      continue;
    }
    VMSIGHT_TRY(const std::vector<PhysRange> runs, present(range, range.start, range.size));
    for (const PhysRange& run : runs) append_range(found, run);
  }
  return found;
}

/// Pages of the range that the QEMU process has, in memory or swapped out.
Result<std::vector<PhysRange>> ProcessReads::present(const RamRange& range, GuestPhys from,
                                                     std::uint64_t size) const {
  // Documentation/admin-guide/mm/pagemap.rst: one u64 a page; bit 63 present, bit 62 swapped.
  constexpr std::uint64_t there = 3ULL << 62;
  std::array<std::uint64_t, 4096> entries;
  std::vector<PhysRange> found;
  GuestPhys at = from.page();
  const GuestPhys end = from + size;
  while (at < end) {
    const std::uint64_t pages = (end - at + page_size - 1) >> page_shift;
    const std::uint64_t first = (range.host + (at - range.start)).pfn();
    const std::size_t wanted = std::min<std::uint64_t>(pages, entries.size()) * sizeof(entries[0]);
    const ssize_t got = ::pread(pagemap_.get(), entries.data(), wanted,
                                static_cast<off_t>(first * sizeof(entries[0])));
    if (got < 0) return os_error(errno, fmt::format("read pagemap of {}", pid_));
    const std::size_t count = static_cast<std::size_t>(got) / sizeof(entries[0]);
    if (count == 0) return read_error(ESRCH);  // a process without memory has ended
    for (std::size_t i = 0; i < count; ++i, at = at + page_size) {
      if (entries[i] & there) append_range(found, {at, page_size});
    }
  }
  return found;
}

Result<std::unique_ptr<GuestMemory>> open_live_read(const Vm& vm) {
  VMSIGHT_TRY(std::unique_ptr<PageSource> source, ProcessReads::open(vm));
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> memory, CachedMemory::make(std::move(source)));
  return memory;
}

}  // namespace vmsight
