#include "support/faulty_memory.h"

#include <cstring>
#include <random>

namespace vmsight::test {
namespace {

constexpr std::uint32_t certain = 65536;
constexpr std::size_t word = 8;

/// A generator for one page; `salt` tells the decisions about it apart.
std::minstd_rand generator(std::uint64_t seed, GuestPhys page, std::uint64_t salt) {
  std::seed_seq sequence{
      static_cast<std::uint32_t>(seed),       static_cast<std::uint32_t>(seed >> 32),
      static_cast<std::uint32_t>(page.pfn()), static_cast<std::uint32_t>(page.pfn() >> 32),
      static_cast<std::uint32_t>(salt),       static_cast<std::uint32_t>(salt >> 32)};
  return std::minstd_rand(sequence);
}

bool happens(std::minstd_rand& random, std::uint32_t chance) { return random() % certain < chance; }

/// The changes that hurt readers of linked structures most.
void corrupt_word(std::minstd_rand& random, std::span<std::byte> page) {
  const std::size_t words = page.size() / word;
  std::byte* at = page.data() + word * (random() % words);
  std::uint64_t value = 0;
  std::memcpy(&value, at, word);
  switch (random() % 6) {
    case 0:
      value = 0;
      break;
    case 1:
      value = ~0ULL;
      break;
    case 2:
      value ^= 1ULL << (random() % 64);
      break;
    case 3:
      value = (static_cast<std::uint64_t>(random()) << 32) ^ random();
      break;
    case 4:
      value += 4096 - random() % 8192;
      break;
    default:  // another word of the page: a cycle, if it is a list
      std::memcpy(&value, page.data() + word * (random() % words), word);
  }
  std::memcpy(at, &value, word);
}

void corrupt(std::minstd_rand random, std::span<std::byte> page) {
  const unsigned count = 1 + random() % 16;
  for (unsigned i = 0; i < count; ++i) corrupt_word(random, page);
}

}  // namespace

bool FaultyMemory::missing(GuestPhys page) const {
  std::minstd_rand random = generator(policy_.seed, page, 0);
  return happens(random, policy_.missing);
}

void FaultyMemory::spoil(GuestPhys page, std::span<std::byte> bytes) {
  std::minstd_rand decide = generator(policy_.seed, page, 1);
  if (happens(decide, policy_.corrupt)) corrupt(generator(policy_.seed, page, 2), bytes);
  if (happens(decide, policy_.unstable)) {
    corrupt(generator(policy_.seed, page, 3 + ++readings_), bytes);
  }
  if (policy_.change) policy_.change(page, bytes);
}

const std::byte* FaultyMemory::page(GuestPhys address) {
  if (gone()) return nullptr;
  ++page_calls_;
  const GuestPhys page = address.page();
  if (const auto known = pages_.find(page.pfn()); known != pages_.end()) {
    return known->second.get();
  }
  const std::byte* good = missing(page) ? nullptr : inner_->page(page);
  if (good == nullptr) return nullptr;
  Page copy = std::make_unique<std::byte[]>(page_size);
  std::memcpy(copy.get(), good, page_size);
  spoil(page, {copy.get(), page_size});
  return (pages_[page.pfn()] = std::move(copy)).get();
}

Result<void> FaultyMemory::read_fresh(std::span<FreshRead> reads) {
  VMSIGHT_TRY_VOID(health());
  for (FreshRead& read : reads) {
    std::byte page[page_size];
    FreshRead whole{.from = read.from.page(), .into = page};
    if (!missing(whole.from)) VMSIGHT_TRY_VOID(inner_->read_fresh({&whole, 1}));
    read.ok = whole.ok && read.from.page_offset() + read.into.size() <= page_size;
    if (!read.ok) continue;
    spoil(whole.from, page);
    std::memcpy(read.into.data(), page + read.from.page_offset(), read.into.size());
  }
  return {};
}

Result<void> FaultyMemory::do_refresh() {
  pages_.clear();
  VMSIGHT_TRY_VOID(health());
  return inner_->refresh();
}

void FaultyMemory::do_forget(std::span<const GuestPhys> pages) {
  for (const GuestPhys page : pages) pages_.erase(page.pfn());
  inner_->forget(pages);
}

Result<void> FaultyMemory::scan(GuestPhys from, std::span<std::byte> into) {
  VMSIGHT_TRY_VOID(health());
  VMSIGHT_TRY_VOID(inner_->scan(from, into));
  // Whole pages of what was copied are spoilt as page() would spoil them.
  std::size_t at = (page_size - from.page_offset()) % page_size;
  for (; at + page_size <= into.size(); at += page_size) {
    spoil(from + at, into.subspan(at, page_size));
  }
  return {};
}

Result<void> FaultyMemory::health() {
  if (gone()) {
    return Error{.code = ErrorCode::vm_gone, .message = "the VM has ended (injected)"};
  }
  return inner_->health();
}

}  // namespace vmsight::test
