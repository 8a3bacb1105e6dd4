// What the verb was asked for reaches vmsight-study as it was, and nothing else is taken for it.
#include "study/options.h"

#include <gtest/gtest.h>

namespace vmsight::study_options_test {
namespace {

Result<StudyOptions> read(const std::vector<std::string>& words) {
  const std::vector<std::string_view> views(words.begin(), words.end());
  return study_options_of(views);
}

StudyOptions example() {
  return {.study = "techniques",
          .vm = "web 1=\xff\n\x1b[31m",
          .json = true,
          .headers = false,
          .techniques = {"live-map", "halt-read:ptrace", ""},
          .rates = {0.1, 1.0 / 3, 1e6},
          .cpu = {10, 12.5},
          .seconds = 0.05,
          .rounds = 1000,
          .resume = "/tmp/\xfe file",
          .technique = "live-read",
          .rate = 12.5,
          .call = "ssh web1 'x=$CALLS'",
          .site = "kprobe:f",
          .calls = ~std::uint64_t{0},
          .slow_calls = 7,
          .engines = {"kvm"},
          .timeout = 86400};
}

TEST(StudyOptions, ComeAsTheyWere) {
  const StudyOptions sent = example();
  const auto got = read(words_of(sent));
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(words_of(*got), words_of(sent));
  EXPECT_EQ(got->vm, sent.vm);
  EXPECT_EQ(got->json, sent.json);
  EXPECT_EQ(got->headers, sent.headers);
  EXPECT_EQ(got->techniques, sent.techniques);
  EXPECT_EQ(got->rates, sent.rates);
  EXPECT_EQ(got->cpu, sent.cpu);
  EXPECT_EQ(got->seconds, sent.seconds);
  EXPECT_EQ(got->resume, sent.resume);
  EXPECT_EQ(got->call, sent.call);
  EXPECT_EQ(got->calls, sent.calls);
  EXPECT_EQ(got->timeout, sent.timeout);
}

TEST(StudyOptions, NeedNotBeSet) {
  const auto got = read(words_of({.study = "loop", .vm = "web1"}));
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_FALSE(got->seconds);
  EXPECT_TRUE(got->techniques.empty());
  EXPECT_TRUE(got->headers);
  EXPECT_EQ(got->technique, "auto");
  EXPECT_EQ(got->rounds, StudyOptions{}.rounds);
}

TEST(StudyOptions, AreRefusedIfAWordIsNone) {
  for (const char* word :
       {"", "=", "loop", "rounds", "Rounds=5", "rounds=", "rounds=-1", "rounds=5x", "rounds= 5",
        "rounds=99999999999", "rate=fast", "seconds=", "json=1", "headers=", "--json", "rates=1,2",
        "calls=18446744073709551616", "of-tomorrow=1"}) {
    const auto got = read({"study=loop", "vm=web1", word});
    ASSERT_FALSE(got) << word;
    EXPECT_EQ(got.error().code, ErrorCode::usage);
    EXPECT_FALSE(got.error().hint.empty());
  }
}

TEST(StudyOptions, NameAStudy) {
  EXPECT_FALSE(read({}));
  EXPECT_FALSE(read({"vm=web1"}));
  EXPECT_FALSE(read({"study=", "vm=web1"}));
  EXPECT_FALSE(read({"study=everything", "vm=web1"}));
  EXPECT_TRUE(read({"study=probes", "vm=web1"}));
}

}  // namespace
}  // namespace vmsight::study_options_test
