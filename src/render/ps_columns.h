// The columns that `ps -o` knows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "render/table.h"
#include "vmsight/state.h"

namespace vmsight {

struct PsRow {
  const Process* process = nullptr;
  const Thread* thread = nullptr;  // set in rows of threads
  std::string indent;              // of the tree
};

/// What columns need to know beside the row.
struct PsClock {
  std::uint64_t uptime_ns = 0;
  std::optional<std::int64_t> boot_unix_ns;
  std::int64_t now_unix_ns = 0;
};

struct PsColumn {
  std::string_view name;  // of -o
  std::string_view header;
  Align align = Align::left;
  std::string (*text)(const PsRow&, const PsClock&);
  std::int64_t (*key)(const PsRow&) = nullptr;  // to sort by; nullptr: by the text
};

const PsColumn* find_ps_column(std::string_view name);

}  // namespace vmsight
