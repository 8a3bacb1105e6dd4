#include "view/unpacked_memory.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <system_error>
#include <thread>

#include "image/image_bytes.h"
#include "view/file_runs.h"
#include "view/lazy_array.h"
#include "view/page_index.h"
#include "view/ram_pieces.h"

namespace vmsight {
namespace {

enum class PageState : std::uint8_t {
  unknown,
  ready,   // its frame holds it
  absent,  // it cannot be read, now or later
};

class UnpackedMemory final : public GuestMemory {
 public:
  static Result<std::unique_ptr<GuestMemory>> make(const Image& image, const UnpackLimits& limits) {
    auto memory = std::make_unique<UnpackedMemory>();
    memory->ram_ = image.ram;
    memory->bytes_ = image.bytes;
    memory->segments_ = image.segments;
    memory->limits_ = limits;
    VMSIGHT_TRY_VOID(memory->check_segments(image.path));
    VMSIGHT_TRY(memory->index_, PageIndex::from(image.ram));
    const std::uint32_t pages = memory->index_.size();
    VMSIGHT_TRY(memory->states_, LazyArray<PageState>::make(pages));
    VMSIGHT_TRY(memory->touched_, LazyArray<bool>::make(pages));
    VMSIGHT_TRY(memory->frames_, LazyArray<Frame>::make(pages));
    return std::unique_ptr<GuestMemory>(std::move(memory));
  }

  const RamMap& ram() const override { return ram_; }

  const std::byte* page(GuestPhys address) override {
    const auto number = index_.find(address);
    if (!number) return nullptr;
    if (states_[*number] == PageState::unknown) [[unlikely]]
      fetch_around(*number);
    if (states_[*number] != PageState::ready) return nullptr;
    touch(*number);
    return frames_[*number].bytes;
  }

  void prefetch(std::span<const GuestPhys> pages) override {
    std::vector<std::uint32_t> wanted;
    for (const GuestPhys page : pages) {
      const auto number = index_.find(page);
      if (number && states_[*number] == PageState::unknown) wanted.push_back(*number);
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    // A hint must not use up what page() may keep.
    const std::size_t room = limits_.max_pages / 2 > kept_ ? limits_.max_pages / 2 - kept_ : 0;
    wanted.resize(std::min(wanted.size(), room));
    fetch(wanted);
  }

  Result<void> read_fresh(std::span<FreshRead> reads) override {
    for (FreshRead& read : reads) {
      read.ok = read.from.page_offset() + read.into.size() <= page_size &&
                copy(read.from, read.into).has_value();
      if (read.ok) copied_ += read.into.size();
    }
    return {};
  }

  Result<std::vector<PhysRange>> populated() override {
    std::vector<PhysRange> found;
    for (const ImageSegment& segment : segments_) {
      std::uint64_t at = segment.file_offset;
      const std::uint64_t end = segment.file_offset + segment.file_size;
      while (at < end) {
        VMSIGHT_TRY(const auto run, bytes_->next_data(at));
        if (!run || run->start >= end) break;
        const GuestPhys first = (segment.start + (run->start - segment.file_offset)).page();
        const std::uint64_t stop = std::min(run->end, end) - segment.file_offset;
        const GuestPhys last = (segment.start + stop + (page_size - 1)).page();
        append_range(found, {first, last - first});
        at = run->end;
      }
    }
    return found;
  }

  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    VMSIGHT_TRY_VOID(copy(from, into));
    copied_ += into.size();
    return {};
  }

  Result<void> health() override {
    if (failure_) return *failure_;
    return {};
  }

  MemoryCounters counters() const override {
    return {.bytes = touched_pages_.size() * page_size + copied_,
            .pages = touched_pages_.size(),
            .calls = unpacked_};
  }
  bool is_live() const override { return false; }
  ViewNature nature() const override { return {.one_moment = true}; }
  std::string_view technique() const override { return "file"; }

 private:
  struct Frame {
    std::byte bytes[page_size];
  };

  Result<void> check_segments(const std::string& path) {
    std::stable_sort(
        segments_.begin(), segments_.end(),
        [](const ImageSegment& a, const ImageSegment& b) { return a.start < b.start; });
    GuestPhys covered{};
    for (ImageSegment& segment : segments_) {
      const auto end = segment.start.checked_add(segment.size);
      segment.file_size = std::min(segment.file_size, segment.size);
      const bool whole = segment.start.page_offset() == 0 && segment.size % page_size == 0;
      const bool in_file =
          segment.file_offset <= INT64_MAX && segment.file_size <= INT64_MAX - segment.file_offset;
      if (!end || !whole || !in_file || segment.start < covered) {
        return Error{
            .code = ErrorCode::bad_data,
            .message = fmt::format("open {}: segment at {} is not whole pages, or overlaps", path,
                                   segment.start)};
      }
      covered = *end;
    }
    return {};
  }

  Result<void> do_refresh() override {
    for (const std::uint32_t number : touched_pages_) touched_[number] = false;
    touched_pages_.clear();
    copied_ = unpacked_ = 0;
    failure_.reset();
    if (kept_ > limits_.max_pages / 4 * 3) drop_all();
    return {};
  }

  void drop_all() {
    frames_.release_from(0);
    states_.release_from(0);
    kept_ = 0;
  }

  void touch(std::uint32_t number) {
    if (touched_[number]) return;
    touched_[number] = true;
    touched_pages_.push_back(number);
  }

  const ImageSegment* find(GuestPhys address) const {
    const auto after =
        std::upper_bound(segments_.begin(), segments_.end(), address,
                         [](GuestPhys a, const ImageSegment& s) { return a < s.start; });
    if (after == segments_.begin()) return nullptr;
    const ImageSegment& segment = *std::prev(after);
    return address - segment.start < segment.size ? &segment : nullptr;
  }

  /// Straight from the image.
  Result<void> copy(GuestPhys from, std::span<std::byte> into) const {
    while (!into.empty()) {
      const ImageSegment* segment = find(from);
      if (segment == nullptr) return not_ram(from);
      const std::uint64_t offset = from - segment->start;
      const std::size_t length = std::min<std::uint64_t>(into.size(), segment->size - offset);
      const std::size_t held = offset < segment->file_size
                                   ? std::min<std::uint64_t>(length, segment->file_size - offset)
                                   : 0;
      if (held < length && segment->rest == ImageRest::absent) return not_ram(from + held);
      VMSIGHT_TRY_VOID(bytes_->read(segment->file_offset + offset, into.first(held)));
      std::memset(into.data() + held, 0, length - held);
      into = into.subspan(length);
      from = from + length;
    }
    return {};
  }

  /// The page and those that come at the same price.
  void fetch_around(std::uint32_t number) {
    if (kept_ >= limits_.max_pages) {
      failure_ = Error{.code = ErrorCode::unsupported,
                       .message = fmt::format("unpack the image: one view needs more than {} pages",
                                              limits_.max_pages)};
      return;
    }
    const GuestPhys page = index_.page(number);
    const ImageSegment* segment = find(page);
    if (segment == nullptr) return;
    const std::uint64_t at = segment->file_offset + (page - segment->start);
    const std::uint64_t first = at & ~(bytes_->unit() - 1);
    std::vector<std::uint32_t> wanted;
    for (std::uint64_t i = first; i < first + bytes_->unit(); i += page_size) {
      // In guest addresses: the unit may begin before the segment does.
      const auto there = page.raw() + (i - first) - (at - first) / page_size * page_size;
      const auto other = index_.find(GuestPhys(there));
      if (other && states_[*other] == PageState::unknown && find(GuestPhys(there)) == segment) {
        wanted.push_back(*other);
      }
    }
    fetch(wanted);
  }

  void fetch_one(std::uint32_t number) {
    const auto done = copy(index_.page(number), frames_[number].bytes);
    states_[number] = done ? PageState::ready : PageState::absent;
  }

  /// False if no thread is to be had.
  static bool start(std::vector<std::jthread>& others, std::function<void()> work) {
    try {
      others.emplace_back(std::move(work));
      return true;
    } catch (const std::system_error&) {
      return false;
    }
  }

  /// Many are unpacked by as many threads as there are processors.
  void fetch(std::span<const std::uint32_t> numbers) {
    constexpr std::size_t worth_a_thread = 256;
    const std::size_t most = std::max(1U, std::min(8U, std::thread::hardware_concurrency()));
    const std::size_t count = std::clamp<std::size_t>(numbers.size() / worth_a_thread, 1, most);
    const std::size_t share = (numbers.size() + count - 1) / count;
    std::vector<std::jthread> others;
    const auto fetch_all = [this](std::span<const std::uint32_t> part) {
      for (const std::uint32_t number : part) fetch_one(number);
    };
    for (std::span rest = numbers; !rest.empty();) {
      const auto part = rest.first(std::min(share, rest.size()));
      rest = rest.subspan(part.size());
      if (rest.empty() || !start(others, [=] { fetch_all(part); })) fetch_all(part);
    }
    others.clear();  // joins
    kept_ += numbers.size();
    unpacked_ += numbers.size();
  }

  RamMap ram_;
  SharedBytes bytes_;
  std::vector<ImageSegment> segments_;  // by start, not overlapping
  UnpackLimits limits_;
  PageIndex index_;
  LazyArray<PageState> states_;  // by number of the page
  LazyArray<bool> touched_;      // in this view
  LazyArray<Frame> frames_;
  std::vector<std::uint32_t> touched_pages_;
  std::size_t kept_ = 0;
  std::uint64_t copied_ = 0, unpacked_ = 0;
  std::optional<Error> failure_;
};

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_unpacked_view(const Image& image,
                                                        const UnpackLimits& limits) {
  return UnpackedMemory::make(image, limits);
}

}  // namespace vmsight
