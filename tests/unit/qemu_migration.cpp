#include "qemu/migration.h"

#include <gtest/gtest.h>

namespace vmsight::qemu_migration_test {
namespace {

using Events = std::vector<QmpClient::Event>;

TEST(PauseOf, AddsTheStops) {
  EXPECT_EQ(pause_of(Events{}), 0u);
  EXPECT_EQ(pause_of(Events{{.name = "RESUME", .time_us = 5}}), 0u);
  EXPECT_EQ(pause_of(Events{{.name = "STOP", .time_us = 100},
                            {.name = "MIGRATION", .time_us = 110},
                            {.name = "RESUME", .time_us = 130},
                            {.name = "STOP", .time_us = 200},
                            {.name = "RESUME", .time_us = 207}}),
            37'000u);
  EXPECT_EQ(pause_of(Events{{.name = "STOP", .time_us = 100}, {.name = "X", .time_us = 104}}),
            4'000u);
  // The host's clock was set back meanwhile.
  EXPECT_EQ(pause_of(Events{{.name = "STOP", .time_us = 100}, {.name = "RESUME", .time_us = 9}}),
            0u);
}

}  // namespace
}  // namespace vmsight::qemu_migration_test
