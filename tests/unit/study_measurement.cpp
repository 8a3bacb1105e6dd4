#include "study/measurement.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "study/resume.h"
#include "study/techniques.h"

namespace vmsight::study_measurement_test {
namespace {

Measurement example() {
  return {.technique = "halt-read:ptrace",
          .wanted_rate = 10,
          .rate = 9.9,
          .round_rates = {.count = 1, .median = 9.9},
          .reached = true,
          .views = 20,
          .missed = 1,
          .view_ns = {.count = 20, .median = 2e6, .q1 = 1e6, .q3 = 3e6, .mad = 5e5},
          .own_cpu_ms = 1.5,
          .qemu_cpu_ms = std::nullopt,
          .guest_cpu_ms = 0.25,
          .cpu_percent = 3,
          .own_anonymous_kib = 20000};
}

TEST(Measurement, SurvivesJson) {
  const auto back = measurement_from(Json::parse(dump(to_json(example()))));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json(*back), to_json(example()));
  EXPECT_FALSE(back->qemu_cpu_ms);
  EXPECT_DOUBLE_EQ(*back->guest_cpu_ms, 0.25);
}

TEST(Measurement, FailureKeepsItsReason) {
  const Measurement failed{.technique = "agent", .error = "no agent", .hint = "install it"};
  const auto back = measurement_from(to_json(failed));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->error, "no agent");
  EXPECT_EQ(back->hint, "install it");
  EXPECT_EQ(back->wanted_rate, 0);
}

TEST(Measurement, RefusesWhatIsNone) {
  EXPECT_FALSE(measurement_from(Json()));
  EXPECT_FALSE(measurement_from(Json::parse("not json", nullptr, false)));
  Json lame = to_json(example());
  lame["view_ns"] = "fast";
  EXPECT_FALSE(measurement_from(lame));
  lame.erase("view_ns");
  EXPECT_FALSE(measurement_from(lame));
}

TEST(Techniques, WantedByNameOrClass) {
  EXPECT_EQ(class_of("halt-read:ptrace"), "halt-read");
  EXPECT_EQ(class_of("live-map"), "live-map");
  EXPECT_TRUE(is_wanted("live-map", {}));
  EXPECT_TRUE(is_wanted("halt-read:stop", {"halt-read"}));
  EXPECT_TRUE(is_wanted("halt-read:stop", {"live-map", "halt-read:stop"}));
  EXPECT_FALSE(is_wanted("halt-read:stop", {"halt-read:ptrace", "halt"}));
}

TEST(Techniques, UnreachableIsMarked) {
  const Measurement marked = unreachable(example(), 100);
  EXPECT_FALSE(marked.reached);
  EXPECT_EQ(marked.wanted_rate, 100);
  EXPECT_DOUBLE_EQ(marked.rate, 9.9);
}

class ResumeFile : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_ =
      (std::filesystem::temp_directory_path() / ("vmsight-resume-" + std::to_string(::getpid())))
          .string();
  VmInfo vm_{.pid = 7, .start_time = 99};
  MeasureOptions options_{.seconds = 1, .rounds = 5};
};

TEST_F(ResumeFile, KnowsWhatWasKept) {
  {
    auto resume = Resume::open(path_, vm_, options_);
    ASSERT_TRUE(resume) << resume.error().message;
    ASSERT_TRUE(resume->keep(example()));
    ASSERT_TRUE(resume->keep({.technique = "agent", .error = "broken"}));
  }
  std::ofstream(path_, std::ios::app) << R"({"key":{"pid":7)";  // cut short by a crash
  auto again = Resume::open(path_, vm_, options_);
  ASSERT_TRUE(again);
  ASSERT_NE(again->find("halt-read:ptrace", {.rate = 10}), nullptr);
  EXPECT_DOUBLE_EQ(again->find("halt-read:ptrace", {.rate = 10})->rate, 9.9);
  EXPECT_EQ(again->find("halt-read:ptrace", {.rate = 0}), nullptr);
  EXPECT_EQ(again->find("halt-read:ptrace", {.rate = 10, .cpu = 25}), nullptr);
  EXPECT_EQ(again->find("agent", {.rate = 0}), nullptr);  // failures are tried again
  Measurement other = example();
  other.wanted_rate = 1;
  ASSERT_TRUE(again->keep(other));
  auto third = Resume::open(path_, vm_, options_);
  ASSERT_TRUE(third);
  EXPECT_NE(third->find("halt-read:ptrace", {.rate = 1}), nullptr);
}

TEST_F(ResumeFile, AnotherVmOrOtherRoundsDoNotCount) {
  ASSERT_TRUE(Resume::open(path_, vm_, options_)->keep(example()));
  VmInfo restarted = vm_;
  restarted.start_time = 100;
  EXPECT_EQ(Resume::open(path_, restarted, options_)->find("halt-read:ptrace", {.rate = 10}),
            nullptr);
  EXPECT_EQ(
      Resume::open(path_, vm_, {.seconds = 2, .rounds = 5})->find("halt-read:ptrace", {.rate = 10}),
      nullptr);
}

TEST_F(ResumeFile, UnwritablePlaceIsAnError) {
  EXPECT_FALSE(Resume::open("/nonexistent/file", vm_, options_));
}

}  // namespace
}  // namespace vmsight::study_measurement_test
