#include "view/sigbus_guard.h"

#include "vmsight/view.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace vmsight {
namespace {

/// What the handler may look at: fixed memory and lock-free atomics only.
struct Entry {
  std::atomic<std::uintptr_t> start{0};  // 0: free
  std::atomic<std::uintptr_t> size{0};
  std::atomic<std::uintptr_t> granule{0};  // page size of the mapping (hugetlbfs has large ones)
  std::atomic<bool> damaged{false};
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free);

constexpr std::size_t max_entries = 1024;
std::array<Entry, max_entries> table;
std::mutex table_mutex;  // for those who add and remove; the handler takes no lock
struct sigaction previous_action;

bool replace_lost_page(std::uintptr_t address) {
  for (Entry& entry : table) {
    const std::uintptr_t start = entry.start.load(std::memory_order_acquire);
    if (start == 0 || address < start || address - start >= entry.size.load()) continue;
    const std::uintptr_t granule = entry.granule.load();
    void* page = reinterpret_cast<void*>(address & ~(granule - 1));
    void* zeros = ::mmap(page, granule, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) return false;
    entry.damaged.store(true);
    return true;
  }
  return false;
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  // A sent signal (si_code <= 0) has no faulting address.
  if (info->si_code > 0 && replace_lost_page(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
    errno = saved_errno;
    return;
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else if (info->si_code > 0 || previous_action.sa_handler == SIG_DFL) {
    // The default: die of it, at the faulting instruction where there is one.
    ::signal(signal, SIG_DFL);
    if (info->si_code <= 0) ::raise(signal);
  }
  errno = saved_errno;
}

std::atomic<bool> handler_installed{false};

}  // namespace

Result<void> survive_lost_memory() {
  static const int failure = [] {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &previous_action) == 0 ? 0 : errno;
  }();
  if (failure != 0) return os_error(failure, "install the handler of SIGBUS");
  handler_installed = true;
  return {};
}

namespace {

/// What a mapping of the file must begin and end at: hugetlbfs says its page size as the size of its
/// blocks. Other file systems say any size, and are not hurt by a larger mapping.
std::uint64_t mapping_unit(const struct stat& st) {
  const auto block = static_cast<std::uint64_t>(st.st_blksize);
  const bool huge = block >= (2U << 20) && (block & (block - 1)) == 0;
  return huge ? block : page_size;
}

int add_entry(std::uintptr_t start, std::uint64_t size, std::uint64_t granule) {
  const std::lock_guard lock(table_mutex);
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].start.load() != 0) continue;
    table[i].size.store(size);
    table[i].granule.store(granule);
    table[i].damaged.store(false);
    table[i].start.store(start, std::memory_order_release);
    return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

Result<GuardedMapping> GuardedMapping::map(int fd, std::uint64_t offset, std::uint64_t size) {
  if (!handler_installed) {
    return Error{
        .code = ErrorCode::unsupported,
        .message = "map memory: it may vanish, and this program has not asked to survive that",
        .hint = "a program that uses libvmsight calls survive_lost_memory() first"};
  }
  struct stat st {};
  if (::fstat(fd, &st) != 0) return os_error(errno, "look at a file to map");
  const std::uint64_t unit = mapping_unit(st);
  const std::uint64_t before = offset % unit;
  const std::uint64_t mapped = (before + size + unit - 1) / unit * unit;
  void* start = ::mmap(nullptr, mapped, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd,
                       static_cast<off_t>(offset - before));
  if (start == MAP_FAILED) return os_error(errno, "map guest RAM");
  GuardedMapping guarded;
  guarded.mapping_ = Mapping(start, mapped);
  guarded.before_ = before;
  guarded.size_ = size;
  ::madvise(start, mapped, MADV_DONTDUMP);  // a core of ours must not hold the guest's memory
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  guarded.entry_ = add_entry(address, mapped, address % unit == 0 ? unit : page_size);
  if (guarded.entry_ < 0) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("map guest RAM: more than {} mappings", max_entries)};
  }
  return guarded;
}

GuardedMapping::GuardedMapping(GuardedMapping&& other) noexcept
    : mapping_(std::move(other.mapping_)),
      before_(other.before_),
      size_(other.size_),
      entry_(std::exchange(other.entry_, -1)) {}

GuardedMapping& GuardedMapping::operator=(GuardedMapping&& other) noexcept {
  if (this != &other) {
    release();
    mapping_ = std::move(other.mapping_);
    before_ = other.before_;
    size_ = other.size_;
    entry_ = std::exchange(other.entry_, -1);
  }
  return *this;
}

GuardedMapping::~GuardedMapping() { release(); }

void GuardedMapping::release() {
  if (entry_ >= 0) table[static_cast<std::size_t>(std::exchange(entry_, -1))].start.store(0);
  mapping_.reset();
}

bool GuardedMapping::damaged() const {
  return entry_ >= 0 && table[static_cast<std::size_t>(entry_)].damaged.load();
}

}  // namespace vmsight
