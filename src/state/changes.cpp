#include "state/changes.h"

#include <algorithm>

#include "state/records.h"

namespace vmsight {
namespace {

template <typename Record>
bool by_key(const Record* a, const Record* b) {
  return compare_identity(*a, *b) < 0;
}

/// By key; a socket that several descriptors refer to counts once.
template <typename Record>
std::vector<const Record*> sorted(const std::vector<Record>& records) {
  std::vector<const Record*> list;
  list.reserve(records.size());
  for (const Record& record : records) list.push_back(&record);
  std::stable_sort(list.begin(), list.end(), by_key<Record>);
  const auto same = [](const Record* a, const Record* b) { return compare_identity(*a, *b) == 0; };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return list;
}

template <typename Record>
void compare(const std::vector<Record>& before, const std::vector<Record>& after,
             std::vector<Change<Record>>& changes) {
  const auto old_ones = sorted(before), new_ones = sorted(after);
  auto o = old_ones.begin();
  auto n = new_ones.begin();
  while (o != old_ones.end() || n != new_ones.end()) {
    if (n == new_ones.end() || (o != old_ones.end() && by_key(*o, *n))) {
      changes.push_back({*o++, nullptr});
    } else if (o == old_ones.end() || by_key(*n, *o)) {
      changes.push_back({nullptr, *n++});
    } else {
      if (has_changed(**o, **n)) changes.push_back({*o, *n});
      ++o, ++n;
    }
  }
}

std::size_t problems_of(const State& state, unsigned parts) {
  const auto counts = [&](const Problem& p) { return (parts_named_by(p.where) & parts) != 0; };
  const auto& list = state.problems;
  return static_cast<std::size_t>(std::count_if(list.begin(), list.end(), counts));
}

}  // namespace

bool Changes::empty() const {
  return std::apply([](const auto&... lists) { return (lists.empty() && ...); }, all_);
}

Changes compare_states(const State& before, const State& after, unsigned parts) {
  Changes changes;
  each_kind([&]<typename Record>(const Kind<Record>& kind) {
    if ((parts & kind.part) == 0) return;
    auto& found = changes.of<Record>();
    compare(before.*kind.records, after.*kind.records, found);
    if (kind.comes_only) {
      std::erase_if(found, [](const auto& change) { return change.after == nullptr; });
    }
  });
  return changes;
}

bool is_comparable(const State& before, const State& after, unsigned parts) {
  return after.problems_left_out <= before.problems_left_out &&
         problems_of(after, parts) <= problems_of(before, parts);
}

}  // namespace vmsight
