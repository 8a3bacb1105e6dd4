#include "attach/kept_memory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/memory_decorator.h"
#include "view/cached_memory.h"

namespace vmsight {
namespace {

enum class Task : std::uint8_t { look, refresh, end_view, read, scan, populated, health };

/// Before the places, if any. Both sides are the same program.
struct Question {
  Task task{};
  std::uint32_t places = 0;
  std::uint64_t from = 0, size = 0;  // of a scan
};

struct Place {
  std::uint64_t from = 0, size = 0;
};

/// Before each answer.
struct Seen {
  bool live = true;
  MemoryCounters counters;
};

constexpr std::size_t max_places = 1024;
constexpr std::size_t max_scan = std::size_t{1} << 20;

template <typename T>
void append(std::string& to, const T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  to.append(reinterpret_cast<const char*>(&object), sizeof object);
}

/// Takes it from the front of `text`; false if there is not enough.
template <typename T>
bool take(std::string_view& text, T& into) {
  if (text.size() < sizeof into) return false;
  std::memcpy(&into, text.data(), sizeof into);
  text.remove_prefix(sizeof into);
  return true;
}

Error no_question() {
  return {.code = ErrorCode::usage, .message = "that is no question about memory"};
}

Error no_answer() {
  return {.code = ErrorCode::bad_data, .message = "the front of vmsight answered something else"};
}

/// Our end: what the desk said last, and the means to ask it.
class Line {
 public:
  explicit Line(AskDesk ask) : ask_(std::move(ask)) {}

  /// The payload of the answer. After an error, too, it is known whether the guest runs.
  Result<std::string> ask(const Question& question, std::string_view places = {}) {
    std::string text;
    append(text, question);
    text += places;
    auto said = ask_(text);
    if (!said) {
      if (question.task != Task::look) static_cast<void>(ask({.task = Task::look}));
      return said;
    }
    std::string_view rest = *said;
    if (!take(rest, seen_)) return no_answer();
    said->erase(0, sizeof seen_);
    return said;
  }

  Result<void> tell(Task task) {
    VMSIGHT_TRY(const std::string nothing, ask({.task = task}));
    return {};
  }

  const Seen& seen() const { return seen_; }

 private:
  AskDesk ask_;
  Seen seen_;
};

class KeptSource final : public PageSource {
 public:
  KeptSource(std::shared_ptr<Line> line, RamMap ram, bool passive, std::string technique)
      : line_(std::move(line)),
        ram_(std::move(ram)),
        passive_(passive),
        technique_(std::move(technique)) {}

  const RamMap& ram() const override { return ram_; }

  Result<void> read(std::span<FreshRead> reads) override {
    while (!reads.empty()) {
      const std::size_t count = std::min(reads.size(), max_places);
      VMSIGHT_TRY_VOID(read_some(reads.first(count)));
      reads = reads.subspan(count);
    }
    return {};
  }

  Result<std::vector<PhysRange>> populated() override {
    VMSIGHT_TRY(const std::string said, line_->ask({.task = Task::populated}));
    std::string_view rest = said;
    std::vector<PhysRange> runs;
    for (Place run; take(rest, run);) runs.push_back({GuestPhys(run.from), run.size});
    return runs;
  }

  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    while (!into.empty()) {
      const std::size_t size = std::min(into.size(), max_scan);
      VMSIGHT_TRY(const std::string bytes,
                  line_->ask({.task = Task::scan, .from = from.raw(), .size = size}));
      if (bytes.size() != size) return no_answer();
      std::memcpy(into.data(), bytes.data(), size);
      into = into.subspan(size);
      from = from + size;
    }
    return {};
  }

  Result<void> health() override { return line_->tell(Task::health); }
  std::uint64_t calls() const override { return calls_; }
  bool is_live() const override { return line_->seen().live; }
  bool is_passive() const override { return passive_; }
  std::string_view technique() const override { return technique_; }

 private:
  Result<void> read_some(std::span<FreshRead> reads) {
    std::string places;
    places.reserve(reads.size() * sizeof(Place));
    for (const FreshRead& read : reads) append(places, Place{read.from.raw(), read.into.size()});
    const std::uint64_t before = line_->seen().counters.calls;
    VMSIGHT_TRY(const std::string said,
                line_->ask({.task = Task::read, .places = static_cast<std::uint32_t>(reads.size())},
                           places));
    calls_ += line_->seen().counters.calls - before;
    std::string_view rest = said;
    for (FreshRead& read : reads) {
      if (!take(rest, read.ok) || rest.size() < read.into.size()) return no_answer();
      std::memcpy(read.into.data(), rest.data(), read.into.size());
      rest.remove_prefix(read.into.size());
    }
    return {};
  }

  std::shared_ptr<Line> line_;
  RamMap ram_;
  bool passive_;
  std::string technique_;
  std::uint64_t calls_ = 0;
};

class KeptMemory final : public MemoryDecorator {
 public:
  KeptMemory(std::shared_ptr<Line> line, std::unique_ptr<CachedMemory> cache, ViewNature nature)
      : MemoryDecorator(*cache), line_(std::move(line)), cache_(std::move(cache)), nature_(nature) {
    nature_.direct = false;
  }
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;
  ~KeptMemory() override {
    if (in_view_) static_cast<void>(end_view());
  }

  MemoryCounters counters() const override {
    MemoryCounters counters = cache_->counters();
    counters.bytes += begun_.bytes;
    counters.calls += begun_.calls;
    counters.pause_ns = line_->seen().counters.pause_ns;
    return counters;
  }
  ViewNature nature() const override { return nature_; }
  Result<ReadRights> prepare() override { return ReadRights{.suffice = true}; }

 private:
  Result<void> do_refresh() override {
    in_view_ = true;
    VMSIGHT_TRY_VOID(line_->tell(Task::refresh));
    begun_ = line_->seen().counters;
    if (auto fresh = cache_->refresh(); !fresh) {
      static_cast<void>(end_view());
      return fresh;
    }
    return {};
  }

  Result<void> do_end_view() override {
    in_view_ = false;
    VMSIGHT_TRY_VOID(cache_->end_view());
    return line_->tell(Task::end_view);
  }

  std::shared_ptr<Line> line_;
  std::unique_ptr<CachedMemory> cache_;
  ViewNature nature_;
  MemoryCounters begun_;  // what it cost to begin the view
  bool in_view_ = false;
};

}  // namespace

bool MemoryDesk::is_brief(std::string_view question) {
  Question asked;
  return take(question, asked) && (asked.task == Task::read || asked.task == Task::look);
}

Result<std::string> MemoryDesk::answer(std::string_view question) {
  Question asked;
  if (!take(question, asked)) return no_question();
  std::string said;
  switch (asked.task) {
    case Task::look:
      break;
    case Task::refresh:
      VMSIGHT_TRY_VOID(memory_->refresh());
      break;
    case Task::end_view:
      VMSIGHT_TRY_VOID(memory_->end_view());
      break;
    case Task::read: {
      VMSIGHT_TRY(said, read(question, asked.places));
      break;
    }
    case Task::scan:
      if (asked.size > max_scan) return no_question();
      said.resize(asked.size);
      VMSIGHT_TRY_VOID(
          memory_->scan(GuestPhys(asked.from), std::as_writable_bytes(std::span(said))));
      break;
    case Task::populated: {
      VMSIGHT_TRY(const auto runs, memory_->populated());
      for (const PhysRange& run : runs) append(said, Place{run.start.raw(), run.size});
      break;
    }
    case Task::health:
      VMSIGHT_TRY_VOID(memory_->health());
      break;
    default:
      return no_question();
  }
  std::string with_seen;
  with_seen.reserve(sizeof(Seen) + said.size());
  append(with_seen, Seen{.live = memory_->is_live(), .counters = memory_->counters()});
  return with_seen += said;
}

/// Of each place whether it was read, and its bytes.
Result<std::string> MemoryDesk::read(std::string_view places, std::size_t count) {
  if (count > max_places || places.size() != count * sizeof(Place)) return no_question();
  std::vector<FreshRead> reads(count);
  std::vector<std::size_t> sizes(count);
  std::size_t total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Place place;
    take(places, place);
    const GuestPhys from(place.from);
    if (place.size > page_size - from.page_offset()) return no_question();
    reads[i].from = from;
    sizes[i] = place.size;
    total += place.size + 1;
  }
  std::string said(total, '\0');
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(said));
  std::vector<FreshRead> of_ram;
  std::vector<std::size_t> marks;
  std::size_t at = 0;
  for (std::size_t i = 0; i < count; ++i) {
    reads[i].into = bytes.subspan(at + 1, sizes[i]);
    if (memory_->ram().contains(reads[i].from)) {
      of_ram.push_back(reads[i]);
      marks.push_back(at);
    }
    at += 1 + sizes[i];
  }
  VMSIGHT_TRY_VOID(memory_->read_fresh(of_ram));
  for (std::size_t i = 0; i < of_ram.size(); ++i) said[marks[i]] = of_ram[i].ok ? 1 : 0;
  return said;
}

Result<std::unique_ptr<GuestMemory>> open_kept_memory(AskDesk ask, RamMap ram, ViewNature nature,
                                                      std::string technique) {
  auto line = std::make_shared<Line>(std::move(ask));
  VMSIGHT_TRY_VOID(line->tell(Task::look));
  VMSIGHT_TRY(auto cache, CachedMemory::make(std::make_unique<KeptSource>(
                              line, std::move(ram), nature.passive, std::move(technique))));
  return std::unique_ptr<GuestMemory>(
      std::make_unique<KeptMemory>(std::move(line), std::move(cache), nature));
}

}  // namespace vmsight
