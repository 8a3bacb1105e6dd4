// Holds the userfaultfd of a snapshot, and copies pages before they are written.
// Config: that of the halt service; ranges: [[host address, bytes], ...], as RamMap has them;
// unpopulated. Descriptor: the store for copies.
#include <sys/uio.h>

#include <array>

#include "guard/halt_service.h"
#include "inject/copy_store.h"
#include "inject/write_protect.h"

namespace vmsight {
namespace {

using nlohmann::json;

class UffdService final : public HaltService {
 public:
  UffdService(ServiceSetup setup, std::unique_ptr<VcpuHalt> how,
              std::vector<WriteProtect::Run> runs, CopyStore store)
      : HaltService(std::move(how)),
        setup_(std::move(setup)),
        runs_(std::move(runs)),
        store_(std::move(store)) {}

  Result<std::uint64_t> serve(const GuardQuestion& question) override {
    switch (question.request) {
      case GuardRequest::open:
        return open();
      case GuardRequest::protect:
        return protect();
      case GuardRequest::unprotect:
        return unprotect();
      default:
        return HaltService::serve(question);
    }
  }
  void watch(std::vector<pollfd>& events) const override {
    if (protect_) events.push_back({.fd = protect_->fd(), .events = POLLIN, .revents = 0});
  }
  Result<void> on_events() override;
  void end() override {
    HaltService::end();
    protect_.reset();  // closing it is all that it takes
  }

 private:
  Result<std::uint64_t> open() {
    const json unpopulated = setup_.config.value("unpopulated", json(false));
    VMSIGHT_TRY(protect_,
                note(WriteProtect::open(setup_.vm.pid, runs_, unpopulated == true, tracing_)));
    return std::uint64_t{0};
  }
  Result<std::uint64_t> protect() {
    VMSIGHT_TRY_VOID(halt().check());
    if (!protect_) return unknown_request();
    store_.clear();
    copying_ = true;
    VMSIGHT_TRY_VOID(protect_->protect());
    return std::uint64_t{0};
  }
  Result<std::uint64_t> unprotect() {
    if (!protect_) return unknown_request();
    copying_ = false;
    VMSIGHT_TRY_VOID(protect_->allow_all());
    return std::uint64_t{store_.count()};
  }
  void copy(HostVirt page);
  std::optional<std::uint32_t> number_of(HostVirt page) const;

  ServiceSetup setup_;
  std::vector<WriteProtect::Run> runs_;
  CopyStore store_;
  Tracing tracing_;
  std::optional<WriteProtect> protect_;
  bool copying_ = false;
};

/// QEMU's threads stand until their pages are copied: nothing here may wait for QEMU.
Result<void> UffdService::on_events() {
  if (!protect_) return {};
  std::array<HostVirt, 32> pages;
  VMSIGHT_TRY(const std::size_t count, protect_->waiting(pages));
  for (const HostVirt page : std::span(pages).first(count)) {
    if (copying_) copy(page);
    // One that fails was unmapped: its writer gets the fault that it would have had anyway.
    static_cast<void>(protect_->allow(page));
  }
  return {};
}

void UffdService::copy(HostVirt page) {
  const std::optional<std::uint32_t> number = number_of(page);
  if (!number || store_.find(*number) != nullptr) return;
  const iovec local{store_.room(), page_size};
  const iovec remote{reinterpret_cast<void*>(page.raw()), page_size};
  const ssize_t got = ::process_vm_readv(setup_.vm.pid, &local, 1, &remote, 1, 0);
  if (got == static_cast<ssize_t>(page_size)) {
    store_.publish(*number);
  } else {
    store_.set_lost();
  }
}

/// Densely, range by range, as the reader numbers them.
std::optional<std::uint32_t> UffdService::number_of(HostVirt page) const {
  std::uint64_t first = 0;
  for (const WriteProtect::Run& run : runs_) {
    if (page >= run.start && page - run.start < run.size) {
      return static_cast<std::uint32_t>(first + ((page - run.start) >> page_shift));
    }
    first += run.size >> page_shift;
  }
  return std::nullopt;
}

Result<std::vector<WriteProtect::Run>> parse_ranges(const json& list) {
  const Error bad{.code = ErrorCode::bad_data, .message = "protect guest RAM: no such ranges"};
  constexpr std::size_t max_ranges = 4096;
  if (!list.is_array() || list.size() > max_ranges) return bad;
  std::vector<WriteProtect::Run> runs;
  for (const json& range : list) {
    if (!range.is_array() || range.size() != 2 || !range[0].is_number_unsigned() ||
        !range[1].is_number_unsigned()) {
      return bad;
    }
    runs.push_back({HostVirt(range[0].get<std::uint64_t>()), range[1].get<std::uint64_t>()});
  }
  return runs;
}

}  // namespace

Result<std::unique_ptr<Service>> make_uffd_service(ServiceSetup&& setup) {
  VMSIGHT_TRY(auto how, make_vcpu_halt(setup));
  VMSIGHT_TRY(auto runs, parse_ranges(setup.config.value("ranges", json())));
  std::uint64_t pages = 0;
  for (const WriteProtect::Run& run : runs) pages += run.size >> page_shift;
  if (setup.descriptors.empty() || pages > UINT32_MAX) return unknown_request();
  VMSIGHT_TRY(CopyStore store, CopyStore::share(std::move(setup.descriptors.front()),
                                                static_cast<std::uint32_t>(pages)));
  return std::unique_ptr<Service>(std::make_unique<UffdService>(std::move(setup), std::move(how),
                                                                std::move(runs), std::move(store)));
}

}  // namespace vmsight
