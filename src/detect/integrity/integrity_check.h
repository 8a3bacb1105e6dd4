// What a check of integrity gets and gives: one file a check, one line in integrity_check.cpp.
#pragma once

#include <string>
#include <vector>

#include "detect/integrity/integrity.h"
#include "detect/integrity/integrity_memory.h"
#include "detect/integrity/kernel_changes.h"
#include "detect/integrity/kernel_places.h"
#include "detect/integrity/own_traps.h"
#include "vmsight/reader.h"

namespace vmsight {

/// One look of one check.
struct Look {
  Kernel& kernel;
  Reader& reader;
  const KernelPlaces& places;
  const IntegrityOptions& options;
  const State* state;  // with the parts that the check declares
  const std::vector<OwnTrap>& own_traps;
  IntegrityMemory& memory;
  std::string_view check;
  std::vector<Finding> findings{};
  std::string note{};
  std::uint64_t looked_at = 0;

  /// The check's name is put in.
  void find(Finding finding) {
    if (findings.size() >= max_findings) return;
    finding.check = check;
    findings.push_back(std::move(finding));
  }
  static constexpr std::size_t max_findings = 1000;
};

struct IntegrityCheck {
  CheckInfo info;
  unsigned parts = 0;  // of the state
  /// An error says why the check could not be done. The reader has no fault when it begins.
  Result<void> (*run)(Look& look) = nullptr;
  unsigned doubtful_during = KernelChanges::none;  // kinds, by which what was found may come to be
  unsigned looks = 3;                              // that must agree on a guest that runs
};

std::span<const IntegrityCheck> integrity_check_table();

/// unsupported: "this kernel has no ..."; fault: "... is not readable".
Error lacks(std::string_view what);
Error unreadable(std::string_view what);

}  // namespace vmsight
