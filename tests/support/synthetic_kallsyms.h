// Builds kallsyms tables as scripts/kallsyms.c of the Linux sources writes them, in all orders
// and encodings that kernels have had.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/kallsyms.h"

namespace vmsight::test {

enum class TableOrder { old, old_with_seqs, fresh };

struct SyntheticSymbol {
  std::string name;
  char type = 'T';
  std::uint64_t value = 0;  // distance from _text, or the value itself
  bool absolute = false;
};

struct KallsymsSpec {
  TableOrder order = TableOrder::fresh;
  KallsymsLayout::Encoding encoding = KallsymsLayout::Encoding::absolute_percpu;
  std::size_t marker_width = 4;
  std::vector<SyntheticSymbol> symbols;     // absolute ones first, then ascending
  std::uint64_t text = 0xffffffff81000000;  // the base; for from_slot: _text - first table
};

struct BuiltKallsyms {
  std::vector<std::byte> bytes;
  KallsymsLayout layout;  // what locating them must give
};

BuiltKallsyms build_kallsyms(const KallsymsSpec& spec);

/// `count` text symbols "filler_0000" ..., 16 bytes apart, the first at `start`.
std::vector<SyntheticSymbol> filler_symbols(std::size_t count, std::uint64_t start);

}  // namespace vmsight::test
