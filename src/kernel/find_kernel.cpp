// find_kernel(): from nothing but guest memory to a running Linux kernel.
//
//   1  where a kernel's read-only data begins: what the vCPUs' page tables map, else every
//      2 MiB boundary of RAM, else (slow) around kallsyms token tables anywhere
//   2  its symbols: from the cache of this build, else from its kallsyms tables
//   3  where it is mapped: by its own page table
//   4  which of several runs
#include <algorithm>
#include <chrono>
#include <thread>

#include "base/clock.h"
#include "kernel/bytes.h"
#include "kernel/cache.h"
#include "kernel/found_kernel.h"
#include "kernel/linux_kernel.h"
#include "kernel/place.h"

namespace vmsight {
namespace {

// The token-table search: an image begins at most this far before its tables.
constexpr std::uint64_t image_before_tables = 64U << 20;
constexpr std::uint64_t tables_reach = 24U << 20;

class Finder {
 public:
  Finder(GuestMemory& memory, const FindKernelOptions& options)
      : memory_(memory),
        options_(options),
        cache_(options.cache ? KernelCache(options.cache) : KernelCache(options.cache_dir)) {}

  Result<std::unique_ptr<Kernel>> find() {
    const Stopwatch total;
    std::size_t chosen = 0;
    if (!is_where_it_was()) {
      VMSIGHT_TRY_VOID(find_candidates());
      if (kernels_.empty()) return nothing_found();
      VMSIGHT_TRY(chosen, choose_kernel(memory_, kernels_, options_, rejected_.size()));
    }
    remember_place(kernels_[chosen]);
    for (FoundKernel& kernel : kernels_) report_.candidates.push_back(kernel.candidate);
    report_.cache_used = from_cache_[chosen];
    for (const FoundKernel& kernel : kernels_) report_.symbols_ns += kernel.symbols->load_ns();
    VMSIGHT_TRY(auto kernel,
                LinuxKernel::create(memory_, std::move(kernels_[chosen]), std::move(cache_)));
    report_.types_ns = kernel->attach_report().types_ns;
    report_.total_ns = total.elapsed_ns();
    kernel->set_attach_report(std::move(report_));
    return std::unique_ptr<Kernel>(std::move(kernel));
  }

 private:
  /// Whether the kernel that ran in this VM the last time lies there still, and runs.
  bool is_where_it_was() {
    if (options_.vm_identity.empty() || options_.choose || !memory_.is_live()) return false;
    place_ = cache_.find_place(options_.vm_identity);
    if (!place_) return false;
    const Stopwatch watch;
    const auto hits = banners_at(memory_, {&place_->rodata, 1});
    if (hits && hits->size() == 1) understand(hits->front());
    const bool runs = kernels_.size() == 1 && runs_now(kernels_.front());
    report_.scan_ns += watch.elapsed_ns();
    if (runs) {
      kernels_.front().candidate.live = true;
      kernels_.front().candidate.why = "it is where it was, and its clock shows that it runs";
    } else {
      kernels_.clear();
      from_cache_.clear();
      rejected_.clear();
      report_.cache_note.clear();
      place_.reset();
    }
    return runs;
  }

  bool runs_now(const FoundKernel& kernel) {
    const auto first = read_clock(memory_, kernel);
    if (!first) return false;
    if (keeps_pace(*place_, *first, monotonic_ns())) return true;
    // The guest was paused, or its rate is not known yet. A search of RAM takes about as long.
    constexpr std::uint64_t wait_ns = 30'000'000;
    const Stopwatch watch;
    while (watch.elapsed_ns() < wait_ns) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const auto now = read_clock(memory_, kernel);
      if (now && *now != *first) return true;
    }
    return false;
  }

  /// Written only if it says something new: the place, the rate, or where the clock is after a pause.
  void remember_place(const FoundKernel& kernel) {
    if (options_.vm_identity.empty() || options_.choose || !memory_.is_live()) return;
    const auto ticks = read_clock(memory_, kernel);
    if (!ticks) return;
    const std::uint64_t now = monotonic_ns();
    KernelPlace place{kernel.image.rodata, *ticks, now, 0};
    if (place_ && place_->rodata == place.rodata) {
      if (keeps_pace(*place_, *ticks, now)) return;
      place.ticks_a_second = rate_between(*place_, *ticks, now);
      if (place.ticks_a_second == 0 && *ticks >= place_->ticks) {
        place.ticks_a_second = place_->ticks_a_second;  // it was paused
      }
      // Too early to tell the rate: the first reading is the one to measure from.
      if (place_->ticks_a_second == 0 && place.ticks_a_second == 0 && is_recent(now)) return;
    }
    static_cast<void>(cache_.save_place(options_.vm_identity, place));
  }

  bool is_recent(std::uint64_t now) const {
    constexpr std::uint64_t minute_ns = 60'000'000'000;
    return now >= place_->at_ns && now - place_->at_ns < minute_ns;
  }

  /// All of them, also where a vCPU's word would do: an index means the same kernel however the
  /// guest is looked at, running or as an image, with a monitor or without.
  Result<void> find_candidates() {
    const Stopwatch watch;
    VMSIGHT_TRY(std::vector<BannerHit> hits, scan_banners(memory_));
    VMSIGHT_TRY(const auto mapped, banners_of_vcpus(memory_, named_tables()));
    report_.scan_ns += watch.elapsed_ns();
    hits.insert(hits.end(), mapped.begin(), mapped.end());
    const auto place = [](const BannerHit& hit) { return hit.rodata; };
    std::ranges::stable_sort(hits, {}, place);
    const auto same = [](const BannerHit& a, const BannerHit& b) { return a.rodata == b.rodata; };
    hits.erase(std::unique(hits.begin(), hits.end(), same), hits.end());
    for (const BannerHit& hit : hits) understand(hit);
    if (kernels_.empty() && rejected_.empty()) VMSIGHT_TRY_VOID(search_everywhere());
    return memory_.health();
  }

  std::vector<std::uint64_t> named_tables() const {
    std::vector<std::uint64_t> tables = options_.cr3;
    if (options_.page_table) tables.push_back(options_.page_table->raw());
    return tables;
  }

  void understand(const BannerHit& hit) {
    auto cached = understand_by_cache(hit);
    if (cached) return add(*std::move(cached), true);
    auto found = understand_by(hit, std::make_unique<KernelMemo>());
    if (found) return add(*std::move(found), false);
    rejected_.push_back({hit.banner, found.error()});
  }

  void add(FoundKernel found, bool from_cache) {
    found.candidate.index = static_cast<unsigned>(kernels_.size());
    found.candidate.banner = found.image.banner;
    found.candidate.build_id = found.image.build_id;
    found.candidate.rodata = found.image.rodata;
    kernels_.push_back(std::move(found));
    from_cache_.push_back(from_cache);
  }

  std::optional<FoundKernel> understand_by_cache(const BannerHit& hit) {
    KernelCache::Found cached = cache_.find(hit.banner);
    if (!cached.note.empty()) report_.cache_note = cached.note;
    for (KernelMemo& memo : cached.memos) {
      const std::string build_id = memo.build_id;
      auto found = understand_by(hit, std::make_unique<KernelMemo>(std::move(memo)));
      if (found && found->image.build_id == build_id) return *std::move(found);
      if (cached.memos.size() == 1)
        report_.cache_note = "rebuilt: what it says does not fit the guest";
    }
    return std::nullopt;
  }

  Result<FoundKernel> understand_by(const BannerHit& hit, std::unique_ptr<KernelMemo> memo) {
    FoundKernel found;
    found.memo = std::move(memo);
    found.symbols = std::make_unique<SymbolTable>(memory_, hit.rodata, *found.memo);
    VMSIGHT_TRY(found.image, place_image(memory_, hit, *found.symbols));
    VMSIGHT_TRY_VOID(check_first_task(found));
    found.memo->banner = hit.banner;
    found.memo->build_id = found.image.build_id;
    return found;
  }

  /// The first task has its name where the remembered symbol and type say. (That linux_banner
  /// is the version text has been checked by then.)
  Result<void> check_first_task(FoundKernel& found) {
    VMSIGHT_TRY(const SymbolValue task, found.symbols->require("init_task"));
    const auto* comm = found.memo->members.find("task_struct comm");
    if (comm == nullptr || !*comm) return {};
    constexpr std::string_view name = "swapper";
    std::string bytes(name.size(), '\0');
    const GuestPhys at = found.image.physical(task) + (*comm)->offset;
    if (!read_phys(memory_, at, std::as_writable_bytes(std::span(bytes))) || bytes != name) {
      return Error{.code = ErrorCode::bad_data,
                   .message = "check the kernel's symbols: init_task is not the first task"};
    }
    return {};
  }

  Result<void> search_everywhere() {
    const Stopwatch watch;
    VMSIGHT_TRY(searched_, scan_token_tables(memory_, options_.progress));
    for (const GuestPhys table : searched_->tables) {
      for (const BannerHit& hit : images_around(table)) understand(hit);
    }
    report_.scan_ns += watch.elapsed_ns();
    return {};
  }

  /// Images whose version text is not where it is expected: the tables say how far `linux_banner`
  /// is from _text, each version text in front of them says where the image would begin.
  std::vector<BannerHit> images_around(GuestPhys token_table) {
    const std::uint64_t before = std::min(image_before_tables, token_table.raw());
    const GuestPhys start((token_table.raw() - before) / image_alignment * image_alignment);
    const std::uint64_t size =
        contiguous_ram(memory_.ram(), start, image_before_tables + tables_reach);
    std::vector<std::byte> window(size);
    if (token_table - start >= size || !memory_.scan(start, window)) return {};
    const auto tokens = find_token_table(window, token_table - start);
    if (!tokens) return {};
    const auto located = locate_kallsyms(window, *tokens);
    if (!located) return {};
    const auto bytes = std::span(window).subspan(located->start, located->layout.size);
    const auto tables = Kallsyms::load({bytes.begin(), bytes.end()}, located->layout);
    if (!tables) return {};
    return images_by_banner(*tables, start, window);
  }

  std::vector<BannerHit> images_by_banner(const Kallsyms& tables, GuestPhys start,
                                          std::span<const std::byte> window) {
    std::vector<BannerHit> hits;
    const auto banner = tables.find("linux_banner");
    const auto rodata = tables.find("__start_rodata");
    if (!banner || !rodata) return hits;
    for (std::uint64_t text = 0; text < window.size(); text += image_alignment) {
      const std::uint64_t at = text + banner->value;
      if (at >= window.size()) break;
      auto found = banner_in(window.subspan(at, std::min<std::size_t>(512, window.size() - at)));
      if (found) hits.push_back({start + text + rodata->value, std::move(*found)});
    }
    return hits;
  }

  Error nothing_found() const {
    if (!rejected_.empty()) {
      Error error = rejected_.front().second;
      error.message =
          fmt::format("found \"{}\" but cannot use it: {}", rejected_.front().first, error.message);
      if (error.code == ErrorCode::bad_data) error.code = ErrorCode::not_found;
      return error;
    }
    Error error{.code = ErrorCode::not_found,
                .message = "find a kernel: there is no Linux kernel in guest memory",
                .hint = "the guest may be in its firmware or boot loader, or run another system"};
    if (searched_ && !searched_->banners.empty()) {
      error.message += fmt::format(
          "; the text \"{}\" is there, but no unpacked kernel with symbols "
          "(kallsyms)",
          searched_->banners.front());
    } else if (searched_) {
      error.message += fmt::format(" ({} MiB were searched)", searched_->bytes >> 20);
    }
    return error;
  }

  GuestMemory& memory_;
  const FindKernelOptions& options_;
  KernelCache cache_;
  AttachReport report_;
  std::vector<FoundKernel> kernels_;
  std::vector<bool> from_cache_;
  std::vector<std::pair<std::string, Error>> rejected_;
  std::optional<TokenTableScan> searched_;
  std::optional<KernelPlace> place_;  // where it was, if that could be used
};

}  // namespace

Result<std::unique_ptr<Kernel>> find_kernel(GuestMemory& memory, const FindKernelOptions& options) {
  return Finder(memory, options).find();
}

}  // namespace vmsight
