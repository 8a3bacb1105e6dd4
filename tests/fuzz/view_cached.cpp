// Random use of CachedMemory beside a model of what it promises: a page has the contents of when
// it was first read since refresh() or forget(), pointers do not move, counters are right.
#include <array>
#include <map>
#include <optional>
#include <set>

#include "support/byte_memory.h"
#include "support/fuzz_input.h"
#include "view/cached_memory.h"

namespace {

using namespace vmsight;
using test::ByteMemory;

class Source final : public PageSource {
 public:
  explicit Source(ByteMemory& memory) : memory_(memory) {}
  std::set<std::uint64_t> bad;  // pfns
  const RamMap& ram() const override { return memory_.ram(); }
  Result<void> read(std::span<FreshRead> reads) override {
    ++calls_;
    for (FreshRead& read : reads) {
      read.ok = !bad.contains(read.from.pfn()) && read_phys(memory_, read.from, read.into);
    }
    return {};
  }
  Result<std::vector<PhysRange>> populated() override { return memory_.populated(); }
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override {
    return memory_.scan(from, into);
  }
  Result<void> health() override { return {}; }
  std::uint64_t calls() const override { return calls_; }
  bool is_live() const override { return true; }
  bool is_passive() const override { return true; }
  std::string_view technique() const override { return "fuzz"; }

 private:
  ByteMemory& memory_;
  std::uint64_t calls_ = 0;
};

constexpr std::uint64_t pages_per_range = 28, second_range = 1ULL << 32;

struct PageModel {
  std::uint64_t version = 0;           // what is in the guest now
  std::uint64_t oldest = 0;            // what page() may not be older than
  std::optional<std::uint64_t> shown;  // what page() gave since then: it must stay
  const std::byte* where = nullptr;    // in this view
};

class Game {
 public:
  Game() {
    auto source = std::make_unique<Source>(ram_);
    source_ = source.get();
    cache_ = *CachedMemory::make(std::move(source));
  }

  void step(std::uint8_t action, std::uint8_t where) {
    const GuestPhys at = address(where);
    switch (action % 7) {
      case 0:
      case 1:
        use(at);
        break;
      case 2:
        write(at);
        break;
      case 3:
        forget(at, address(where + 3));
        break;
      case 4:
        cache_->prefetch(std::array{at, address(where + 1), address(where ^ 0x80)});
        break;
      case 5:
        refresh();
        break;
      default:
        toggle_bad(at);
    }
  }

 private:
  /// Some lie outside RAM.
  static GuestPhys address(std::uint8_t byte) {
    const std::uint64_t page = byte % 32;
    return GuestPhys((byte >= 0x80 ? second_range : 0) + page * page_size + byte);
  }

  void use(GuestPhys at) {
    const std::byte* page = cache_->page(at);
    if (!ram_.ram().contains(at)) return VMSIGHT_CHECK(page == nullptr);
    PageModel& model = pages_[at.pfn()];
    if (page == nullptr) {
      VMSIGHT_CHECK(source_->bad.contains(at.pfn()) && !model.shown);
      return;
    }
    std::uint64_t version = 0;
    std::memcpy(&version, page, sizeof(version));
    VMSIGHT_CHECK(version >= model.oldest && version <= model.version);
    VMSIGHT_CHECK(!model.shown || *model.shown == version);
    VMSIGHT_CHECK(model.where == nullptr || model.where == page);
    model.shown = version;
    model.where = page;
    used_.insert(at.pfn());
    VMSIGHT_CHECK(cache_->counters().pages == used_.size());
  }

  void write(GuestPhys at) {
    if (!ram_.ram().contains(at)) return;
    ram_.put(at.page(), ++pages_[at.pfn()].version);
  }

  void forget(GuestPhys first, GuestPhys second) {
    cache_->forget(std::array{first, second});
    for (const GuestPhys at : {first, second}) {
      PageModel& model = pages_[at.pfn()];
      model.oldest = model.version;
      model.shown.reset();
    }
  }

  void refresh() {
    VMSIGHT_CHECK(cache_->refresh().has_value());
    for (auto& [pfn, model] : pages_) {
      model = {.version = model.version, .oldest = model.version};
    }
    used_.clear();
    VMSIGHT_CHECK(cache_->counters().pages == 0);
  }

  void toggle_bad(GuestPhys at) {
    if (source_->bad.erase(at.pfn()) == 0) source_->bad.insert(at.pfn());
  }

  ByteMemory ram_{{{GuestPhys(0), pages_per_range* page_size},
                   {GuestPhys(second_range), pages_per_range* page_size}}};
  Source* source_ = nullptr;
  std::unique_ptr<CachedMemory> cache_;
  std::map<std::uint64_t, PageModel> pages_;
  std::set<std::uint64_t> used_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  test::FuzzInput input(data, size);
  Game game;
  while (!input.empty()) {
    const auto action = input.take<std::uint8_t>();
    game.step(action, input.take<std::uint8_t>());
  }
  return 0;
}
