// Guest RAM in our own memory: the fake behind every test that needs no VM.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <unordered_set>
#include <vector>

#include "base/os.h"
#include "vmsight/memory.h"

namespace vmsight::test {

struct ByteRange {
  GuestPhys start;
  std::uint64_t size = 0;
};

/// Pages are zero until written and cost host memory only then, so a test may have 100 GiB of it.
class ByteMemory final : public GuestMemory {
 public:
  explicit ByteMemory(const std::vector<ByteRange>& ranges);

  /// The bytes from here to the end of the range; empty if it is not RAM. For tests to write.
  std::span<std::byte> at(GuestPhys address);
  void write(GuestPhys to, std::span<const std::byte> bytes);
  template <typename T>
  void put(GuestPhys to, const T& value) {
    write(to, std::as_bytes(std::span(&value, 1)));
  }
  template <typename T>
  T get(GuestPhys from) {
    T value{};
    const std::span<std::byte> bytes = at(from);
    VMSIGHT_CHECK(bytes.size() >= sizeof(T));
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  /// What is_live() says; true makes readers verify what they read.
  void set_live(bool live) { live_ = live; }
  /// What health() says from now on.
  void set_health(std::optional<Error> failure) { failure_ = std::move(failure); }

  const RamMap& ram() const override { return ram_; }
  const std::byte* page(GuestPhys address) override;
  void prefetch(std::span<const GuestPhys>) override {}
  Result<void> read_fresh(std::span<FreshRead> reads) override;
  Result<std::vector<PhysRange>> populated() override;
  Result<void> scan(GuestPhys from, std::span<std::byte> into) override;
  Result<void> health() override;
  MemoryCounters counters() const override;
  bool is_live() const override { return live_; }
  ViewNature nature() const override { return {}; }
  std::string_view technique() const override { return "test"; }

 private:
  Result<void> do_refresh() override;
  Result<void> do_end_view() override { return {}; }
  void do_forget(std::span<const GuestPhys>) override {}  // page() gives no copies

  RamMap ram_;
  std::vector<Mapping> ranges_;  // in the order of ram_.ranges()
  bool live_ = false;
  std::optional<Error> failure_;
  std::unordered_set<std::uint64_t> touched_;  // pfns
};

}  // namespace vmsight::test
