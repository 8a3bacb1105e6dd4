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
  bool names_only = false;         // its command is its name
};

/// What columns need to know beside the row.
struct PsClock {
  std::uint64_t uptime_ns = 0;
  std::optional<std::int64_t> boot_unix_ns;
  std::optional<std::int64_t> unix_ns;  // the guest's own, at the moment of the view
  std::optional<std::uint64_t> memory_bytes;
};

struct PsColumn {
  std::string_view name;  // of -o
  std::string_view header;
  Align align = Align::left;
  std::string (*text)(const PsRow&, const PsClock&);
  /// To sort by; nullptr: by the text.
  std::int64_t (*key)(const PsRow&, const PsClock&) = nullptr;
};

const PsColumn* find_ps_column(std::string_view name);

}  // namespace vmsight
