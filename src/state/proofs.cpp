#include "state/proofs.h"

#include <algorithm>

namespace vmsight {

namespace {
/// Bytes from which words become one run; divides the page size.
constexpr std::uint64_t place_size = 1024;
}  // namespace

void Proofs::begin(bool live, Owner owner) {
  words_.clear();
  runs_.clear();
  run_by_place_.clear();
  live_ = live;
  owner_ = owner;
}

void Proofs::note(Reader& reader, GuestVirt va, std::uint64_t value, std::uint8_t size) {
  if (va.raw() % size != 0 || is_full()) return;  // unaligned: forged, nothing to prove
  const AddressSpace::Window& direct = reader.space().direct_map();
  if (direct.contains(va)) [[likely]] {
    const GuestPhys at(va.raw() - direct.delta);
    words_.push_back({at, value, run_of(at, size), owner_, size});
  } else if (const auto at = reader.space().translate(reader.memory(), va)) {
    words_.push_back({*at, value, run_of(*at, size), owner_, size});
  }
}

std::uint32_t Proofs::run_of(GuestPhys at, std::uint8_t size) {
  const auto place = [](GuestPhys address) { return address.raw() / place_size; };
  const auto extend = [&](std::uint32_t index) {
    Run& run = runs_[index];
    run = {std::min(run.start, at), std::max(run.end, at + size)};
    return index;
  };
  if (!words_.empty()) {
    const std::uint32_t last = words_.back().run;
    if (place(runs_[last].start) == place(at)) return extend(last);
  }
  const GuestVirt key(place(at));
  if (const auto* known = run_by_place_.find(key)) return extend(*known);
  runs_.push_back({at, at + size});
  return run_by_place_.insert(key, static_cast<std::uint32_t>(runs_.size() - 1));
}

Result<std::vector<Proofs::Owner>> Proofs::changed(GuestMemory& memory) {
  std::size_t bytes = 0;
  for (const Run& run : runs_) bytes += run.end - run.start;
  copies_.resize(bytes);
  reads_.clear();
  std::size_t used = 0;
  for (const Run& run : runs_) {
    const std::size_t length = run.end - run.start;
    reads_.push_back({run.start, std::span(copies_).subspan(used, length)});
    used += length;
  }
  VMSIGHT_TRY_VOID(memory.read_fresh(reads_));

  std::vector<Owner> owners;
  for (const Word& word : words_) {
    const FreshRead& read = reads_[word.run];
    std::uint64_t now = 0;
    std::memcpy(&now, read.into.data() + (word.at - read.from), word.size);
    if (!read.ok || now != word.value) owners.push_back(word.owner);
  }
  std::sort(owners.begin(), owners.end());
  owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
  return owners;
}

}  // namespace vmsight
