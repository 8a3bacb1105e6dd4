// What a sandboxed vmsight still needs of its user's rights: a small process that has them, and does what is listed
// here for us. It is forked before they are given up.
//
//   vmsight, in its sandbox --- request ---> front --- open, read, write ---> files of the cache
//                           <--- answer ----       --- QMP ---> the vCPUs' page tables
//                                                  --- a technique ---> guest memory, where a sandbox cannot read it
//
// It interprets nothing of the guest, and believes nothing that it is asked: names are those of cache files, few of them
// are written, lengths are bounded. It ends when we do. A second process, forked beside it, ends us some seconds after QEMU
// has ended, so that we do not read on from whoever gets its PID.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "kernel/cache_files.h"
#include "vmsight/memory.h"
#include "vmsight/vm.h"

namespace vmsight {

class FrontService;

using OpenMemory = std::function<Result<std::unique_ptr<GuestMemory>>()>;

/// What the process does of its own.
struct FrontDuties {
  CacheFiles* cache = nullptr;  // nullptr = there is none
  Vm* vm = nullptr;             // nullptr = an image
  std::string identity;         // of the VM: the one place that may be asked for or kept
  bool ends_reader =
      false;  // the process that it is forked from, if that goes on after the VM's end
  std::vector<OpenMemory> memories;          // opened by the front, and asked for by number
  std::vector<std::uint64_t> page_tables{};  // of the vCPUs, if the monitor cannot be asked later
  FrontService* service = nullptr;           // what else it does
};

class Front {
 public:
  /// Forks: to be called while this process has a single thread. os; or why a memory cannot be opened.
  static Result<std::shared_ptr<Front>> start(const FrontDuties& duties);
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;
  ~Front();

  /// The vCPUs' CR3, by the monitor; none if it cannot tell.
  std::vector<std::uint64_t> cr3();

  /// What it answers; an error is the other side's own. os if it has ended.
  enum class Task : std::uint8_t { list, read, replace, cr3, memory, service, end };
  Result<std::string> ask(Task task, std::string_view name = {}, std::string_view text = {});

 private:
  Front() = default;

  pid_t pid_ = -1;
  UniqueFd socket_;
  bool keeps_memory_ = false;
};

/// The cache by a front.
class FrontCache final : public CacheFiles {
 public:
  explicit FrontCache(std::shared_ptr<Front> front) : front_(std::move(front)) {}

  Result<std::vector<std::string>> list(std::string_view prefix, std::string_view suffix) override;
  Result<std::string> read(std::string_view name) override;
  Result<void> replace(std::string_view name, std::string_view text) override;

 private:
  std::shared_ptr<Front> front_;
};

/// What the forked process does until the other end of the socket is closed.
void serve_as_front(int socket, const FrontDuties& duties);

}  // namespace vmsight
