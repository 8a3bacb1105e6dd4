// What the parts that belong to one process are read with.
#pragma once

#include "state/context.h"
#include "state/paths.h"
#include "state/proofs.h"

namespace vmsight {

struct ProcessContext {
  Context& context;
  Paths& paths;
  Proofs& proofs;  // with the process as owner

  Reader& reader() { return context.reader; }
  State& state() { return context.state; }
};

/// A hostile guest may let a few pages stand for millions of objects with long names. Beyond this
/// much text a view takes no more records; the guests we know of need less than 10 MiB.
inline constexpr std::size_t max_arena_bytes = std::size_t{512} << 20;

template <typename Record>
bool is_full(const std::vector<Record>& records, const Arena& arena) {
  return records.size() >= max_list_entries || arena.bytes() >= max_arena_bytes;
}

}  // namespace vmsight
