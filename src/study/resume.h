// Measurements that were finished, in a file of JSON lines: long work goes on where it ended.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "study/measure.h"

namespace vmsight {

class Resume {
 public:
  /// "" : nothing is known and nothing is kept. Lines of another VM (or of this one before it was
  /// started anew), or of other rounds, do not count; a line cut short by a crash neither.
  static Result<Resume> open(const std::string& path, const VmInfo& info,
                             const MeasureOptions& options);

  const Measurement* find(std::string_view technique, const Pace& pace) const;
  /// Written at once. One that is known already, or that failed, is not written: it is tried again.
  Result<void> keep(const Measurement& measured);

 private:
  void learn(std::string_view line);

  UniqueFd file_;
  std::string path_;
  Json key_;
  std::vector<Measurement> known_;
};

}  // namespace vmsight
