// The comparison of techniques on one VM: each at its maximum rate, then at equal rates.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "study/measure.h"

namespace vmsight {

struct TechniquesOptions {
  MeasureOptions measure;
  std::vector<std::string> names;  // techniques or classes; empty: all there are
  std::vector<double> rates;       // views a second, beside the maximum
  std::vector<double> cpu;         // percent of a core, at maximum rate, beside all of it
  std::string resume_file;         // "": none
  std::function<void(std::string_view)> progress;
};

/// One technique: what `doctor` says of it, and the figures. `measurements` is empty if it cannot
/// be used here; the first is that at maximum rate.
struct TechniqueRow {
  std::string name, what, cost;
  bool usable = false;
  std::string reason, hint;
  std::vector<Measurement> measurements;
};

/// Measures; a technique that fails is a row that says why. Fails only if the VM cannot be opened
/// or has gone, or if the resume file is of no use.
Result<std::vector<TechniqueRow>> study_techniques(const VmInfo& info,
                                                   const TechniquesOptions& options);

/// "halt-read" of "halt-read:ptrace".
std::string_view class_of(std::string_view technique);
/// Whether a technique is asked for: all are by an empty list, else by its name or its class.
bool is_wanted(std::string_view technique, const std::vector<std::string>& names);

/// A rate that a technique cannot reach by far, known from its maximum; not measured.
Measurement unreachable(const Measurement& at_most, double rate);

}  // namespace vmsight
