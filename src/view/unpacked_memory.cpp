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
    const std::uint64_t unit = image.bytes->unit() / page_size;
    memory->limits_.max_pages = std::min(limits.max_pages, memory->index_.size());
    VMSIGHT_TRY(memory->slot_of_, LazyArray<std::uint32_t>::make(memory->index_.size()));
    VMSIGHT_TRY(memory->frames_,
                LazyArray<Frame>::make(memory->limits_.max_pages + unit, PageSize::huge));
    return std::unique_ptr<GuestMemory>(std::move(memory));
  }

  const RamMap& ram() const override { return ram_; }

  const std::byte* page(GuestPhys address) override {
    const auto number = index_.find(address);
    if (!number) return nullptr;
    if (slot_of_[*number] == unknown) [[unlikely]]
      fetch_around(*number);
    const std::uint32_t slot = slot_of_[*number];
    if (slot == unknown || slot == absent) return nullptr;
    touch(slot - 1);
    return frames_[slot - 1].bytes;
  }

  void prefetch(std::span<const GuestPhys> pages) override {
    std::vector<std::uint32_t> wanted;
    for (const GuestPhys page : pages) {
      const auto number = index_.find(page);
      if (number && slot_of_[*number] == unknown) wanted.push_back(*number);
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    // A hint must not use up what page() may keep.
    const std::size_t kept = touched_.size(), most = limits_.max_pages / 2;
    const std::size_t room = most > kept ? most - kept : 0;
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
    return {.bytes = touched_slots_.size() * page_size + copied_,
            .pages = touched_slots_.size(),
            .calls = unpacked_};
  }
  bool is_live() const override { return false; }
  ViewNature nature() const override { return {.one_moment = true, .passive = true}; }
  Result<ReadRights> prepare() override { return ReadRights{.suffice = true}; }
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
    for (const std::uint32_t slot : touched_slots_) touched_[slot] = false;
    touched_slots_.clear();
    copied_ = unpacked_ = 0;
    failure_.reset();
    if (touched_.size() > limits_.max_pages / 4 * 3) drop_all();
    return {};
  }

  Result<void> do_end_view() override { return {}; }      // pages stay for the next view
  void do_forget(std::span<const GuestPhys>) override {}  // an image does not change

  void drop_all() {
    frames_.release_from(0);
    slot_of_.release_from(0);
    touched_.clear();
  }

  void touch(std::uint32_t slot) {
    if (touched_[slot]) return;
    touched_[slot] = true;
    touched_slots_.push_back(slot);
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
      if (held < length && segment->rest == ImageRest::missing) return not_ram(from + held);
      VMSIGHT_TRY_VOID(bytes_->read(segment->file_offset + offset, into.first(held)));
      std::memset(into.data() + held, 0, length - held);
      into = into.subspan(length);
      from = from + length;
    }
    return {};
  }

  /// The page and those that come at the same price.
  void fetch_around(std::uint32_t number) {
    if (touched_.size() >= limits_.max_pages) {
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
      if (other && slot_of_[*other] == unknown && find(GuestPhys(there)) == segment) {
        wanted.push_back(*other);
      }
    }
    fetch(wanted);
  }

  /// Into the frame that its slot says; a page that cannot be read leaves its frame unused.
  void fetch_one(std::uint32_t number) {
    Frame& frame = frames_[slot_of_[number] - 1];
    if (!copy(index_.page(number), frame.bytes)) slot_of_[number] = absent;
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
    constexpr std::size_t worth_a_thread = 256, most = 8;
    std::size_t count = 1;
    if (numbers.size() >= 2 * worth_a_thread) {  // only then: the number is read from a file
      const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
      count = std::min({numbers.size() / worth_a_thread, most, processors});
    }
    const std::size_t share = (numbers.size() + count - 1) / count;
    for (const std::uint32_t number : numbers) {
      touched_.push_back(false);
      slot_of_[number] = static_cast<std::uint32_t>(touched_.size());
    }
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
    unpacked_ += numbers.size();
  }

  RamMap ram_;
  SharedBytes bytes_;
  std::vector<ImageSegment> segments_;  // by start, not overlapping
  UnpackLimits limits_;
  PageIndex index_;
  // Frames are filled one after the other, so that those of a view are close together.
  static constexpr std::uint32_t unknown = 0, absent = ~std::uint32_t{0};
  LazyArray<std::uint32_t> slot_of_;  // by number of the page: slot + 1, unknown or absent
  LazyArray<Frame> frames_;           // by slot
  std::vector<bool> touched_;         // in this view; one for each slot in use
  std::vector<std::uint32_t> touched_slots_;
  std::uint64_t copied_ = 0, unpacked_ = 0;
  std::optional<Error> failure_;
};

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_unpacked_view(const Image& image,
                                                        const UnpackLimits& limits) {
  return UnpackedMemory::make(image, limits);
}

}  // namespace vmsight
