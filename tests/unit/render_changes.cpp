#include "render/changes_text.h"

#include <gtest/gtest.h>

#include "render/json.h"
#include "unit/render_sample.h"

namespace vmsight::render_changes_test {
namespace {

TEST(RenderChanges, LinesSayWhatHappenedAndEscapeTheGuest) {
  State before, after;
  after.processes = {sample_process(42, 1, "ser\x1b[2Jver")};
  before.modules = {{.name = "veth", .state = "Live"}};
  Output out;
  print_changes(out, compare_states(before, after, part_all), {.since_ns = 3'204'000'000});
  EXPECT_EQ(out.text(),
            "     3.204  unloaded   module   veth 0 bytes, Live\n"
            "     3.204  started    process  42 [ser\\x1b[2Jver] (parent 1, uid 0)\n");
}

TEST(RenderChanges, ObjectsHoldBothRecordsOfAChange) {
  State before, after;
  before.processes = {sample_process(42, 1, "sh")};
  after.processes = {sample_process(42, 1, "sleep")};
  Output out;
  write_changes(out, compare_states(before, after, part_all), {.view = 7, .start_ns = 99});
  const Json json = Json::parse(out.text());
  EXPECT_EQ(json["schema"], "vmsight.change/1");
  EXPECT_EQ(json["view"], 7);
  EXPECT_EQ(json["time_ns"], 99);
  EXPECT_EQ(json["part"], "processes");
  EXPECT_EQ(json["change"], "changed");
  EXPECT_EQ(json["record"]["comm"], "sleep");
  EXPECT_EQ(json["before"]["comm"], "sh");
}

}  // namespace
}  // namespace vmsight::render_changes_test
