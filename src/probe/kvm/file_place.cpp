#include "probe/kvm/file_place.h"

#include <algorithm>

#include "probe/kvm/hypercall.h"

namespace vmsight {
namespace {

constexpr std::size_t behind_size = 28;  // with the instruction half a cache line

}  // namespace

std::string without_traps(std::string_view bytes, std::string_view trap) {
  std::string clean(bytes);
  for (std::size_t at = clean.find(trap); at != clean.npos;
       at = clean.find(trap, at + trap.size())) {
    clean.replace(at, trap.size(), endbr64);
  }
  return clean;
}

Result<FilePlaces> FilePlaces::resolve(const RamMap& ram, Kernel& kernel) {
  VMSIGHT_TRY(PageCache cache, PageCache::resolve(kernel));
  return FilePlaces(ram, std::move(cache));
}

FilePlaces::Look FilePlaces::look(Reader& reader, FilePlace& place, std::string_view trap) const {
  if (cache_.identity(reader, place.inode) != place.file)
    return {.state = State::replaced, .at = {}, .host = {}, .bytes = {}};
  const auto page = cache_.page(reader, place.inode, place.offset >> page_shift);
  const std::byte* bytes = page ? reader.memory().page(*page) : nullptr;
  const RamRange* range = page ? ram_->find(*page) : nullptr;
  if (bytes == nullptr || range == nullptr) return {};
  const std::size_t within = place.offset & (page_size - 1);
  if (within + user_trap_size > page_size) return {};
  const std::size_t size = std::min(user_trap_size + behind_size, page_size - within);
  const std::string_view all(reinterpret_cast<const char*>(bytes) + within, size);
  const std::string behind = without_traps(all.substr(user_trap_size), trap);
  Look look{.state = State::other,
            .at = *page + within,
            .host = range->host + (*page - range->start) + within,
            .bytes = std::string(all.substr(0, user_trap_size))};
  if (look.bytes == endbr64) look.state = State::original;
  if (look.bytes == trap) look.state = State::armed;
  if (place.behind.empty())
    place.behind = behind;
  else if (place.behind != behind)
    look.state = State::replaced;
  return look;
}

}  // namespace vmsight
