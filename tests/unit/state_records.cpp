#include "state/records.h"

#include <gtest/gtest.h>
#include <set>

namespace vmsight::state_records_test {
namespace {

TEST(Records, EveryFieldIsDescribed) {
  std::set<std::string_view> keys;
  unsigned parts = 0;
  each_kind([&](const auto& kind) {
    EXPECT_TRUE(keys.insert(kind.key).second) << kind.key;
    EXPECT_EQ(parts & kind.part, 0u) << kind.key;
    parts |= kind.part;
    EXPECT_FALSE(kind.meaning.empty()) << kind.key;
    std::set<std::string_view> names;
    bool is_told_apart = false;
    for (const auto& field : kind.fields) {
      EXPECT_TRUE(names.insert(field.name).second) << kind.key << ' ' << field.name;
      EXPECT_FALSE(field.meaning.empty()) << kind.key << ' ' << field.name;
      EXPECT_NE(field.put, nullptr) << kind.key << ' ' << field.name;
      is_told_apart = is_told_apart || field.order != nullptr;
    }
    EXPECT_TRUE(is_told_apart) << kind.key << " has nothing that tells its records apart";
  });
  EXPECT_EQ(parts | part_os, part_all | part_threads);
}

}  // namespace
}  // namespace vmsight::state_records_test
