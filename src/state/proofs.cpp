#include "state/proofs.h"

#include <algorithm>

namespace vmsight {

namespace {
/// Words this near each other are read as one run: a system call handles long elements as fast
/// as short ones, but charges for each.
constexpr std::uint64_t max_run = 1024;
}  // namespace

void Proofs::note(Reader& reader, GuestVirt va, std::uint64_t value, std::uint8_t size) {
  if (va.page_offset() + size > page_size) return;  // unaligned: forged, nothing to prove
  const AddressSpace::Window& direct = reader.space().direct_map();
  if (direct.contains(va)) [[likely]] {
    words_.push_back({GuestPhys(va.raw() - direct.delta), value, owner_, size});
    return;
  }
  if (const auto at = reader.space().translate(reader.memory(), va)) {
    words_.push_back({*at, value, owner_, size});
  }
}

std::vector<Proofs::Run> Proofs::runs() const {
  std::vector<Run> runs;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    const GuestPhys start = words_[i].at, end = start + words_[i].size;
    if (!runs.empty()) {
      Run& run = runs.back();
      const GuestPhys low = std::min(run.start, start), high = std::max(run.end, end);
      if (low.page() == (high - 1).page() && high - low <= max_run) {
        run = {run.first, i + 1, low, high};
        continue;
      }
    }
    runs.push_back({i, i + 1, start, end});
  }
  return runs;
}

Result<std::vector<Proofs::Owner>> Proofs::changed(GuestMemory& memory) const {
  const std::vector<Run> all = runs();
  std::size_t bytes = 0;
  for (const Run& run : all) bytes += run.end - run.start;
  std::vector<std::byte> copies(bytes);
  std::vector<FreshRead> reads;
  reads.reserve(all.size());
  std::size_t used = 0;
  for (const Run& run : all) {
    const std::size_t length = run.end - run.start;
    reads.push_back({run.start, std::span(copies).subspan(used, length)});
    used += length;
  }
  VMSIGHT_TRY_VOID(memory.read_fresh(reads));

  std::vector<Owner> owners;
  for (std::size_t r = 0; r < all.size(); ++r) {
    for (std::size_t i = all[r].first; i < all[r].last; ++i) {
      const Word& word = words_[i];
      std::uint64_t now = 0;
      std::memcpy(&now, reads[r].into.data() + (word.at - all[r].start), word.size);
      if (!reads[r].ok || now != word.value) owners.push_back(word.owner);
    }
  }
  std::sort(owners.begin(), owners.end());
  owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
  return owners;
}

}  // namespace vmsight
