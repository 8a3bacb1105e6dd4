#include "cli/frame_names.h"

#include <algorithm>

namespace vmsight {
namespace {

/// Up to the next symbol, as the kernel itself computes it.
std::uint64_t size_of(std::span<const Symbol> symbols, GuestVirt address, GuestVirt start) {
  const auto next =
      std::upper_bound(symbols.begin(), symbols.end(), address,
                       [](GuestVirt a, const Symbol& symbol) { return a < symbol.address; });
  return next == symbols.end() ? 0 : next->address - start;
}

}  // namespace

StackFrame name_frame(Kernel& kernel, std::span<const Symbol> symbols, const Frame& frame) {
  StackFrame named{.address = frame.pc, .symbol = {}, .module = {}, .reliable = frame.reliable};
  const auto place = kernel.locate(frame.pc);
  if (!place) return named;
  named.symbol = place->name;
  named.module = place->module;
  named.offset = place->offset;
  named.size = size_of(symbols, frame.pc, frame.pc - place->offset);
  return named;
}

}  // namespace vmsight
