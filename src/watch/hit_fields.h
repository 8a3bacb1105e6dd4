// Fields of a probe's hit, for rules about probes.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "detect/condition.h"
#include "detect/value.h"
#include "vmsight/probe.h"
#include "watch/record_fields.h"

namespace vmsight::detect {

/// What every hit has.
std::vector<RecordFieldNames::Row> rows_of_hits();

/// These, and the arguments by name. The event must outlive it.
class HitFields final : public Fields {
 public:
  explicit HitFields(const ProbeEvent& event) : event_(event) {}
  Value get(std::string_view name) const override;

 private:
  const ProbeEvent& event_;
};

/// The terms of a condition that an engine can judge where the hit happens, as far as it has room: those
/// about what every hit has, or of which `knows(name)` holds. A hit that it refuses does not fulfil the
/// condition; one that it lets through may.
std::string filter_of(const Condition& condition,
                      const std::function<bool(std::string_view name)>& knows);

}  // namespace vmsight::detect
