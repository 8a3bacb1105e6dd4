#include "study/probes.h"

#include <gtest/gtest.h>

#include "study/call_command.h"
#include "study/document.h"

namespace vmsight::study_probes_test {
namespace {

using namespace std::chrono_literals;

TEST(ProbeHits, MustBeThoseThatWereAskedFor) {
  EXPECT_TRUE(check_hits("kprobe:f", 1000, 1000));
  EXPECT_TRUE(check_hits("kprobe:f", 1000, 1030));  // others call it now and then
  EXPECT_EQ(check_hits("kprobe:f", 1000, 0).error().code, ErrorCode::not_found);
  EXPECT_EQ(check_hits("kprobe:f", 1000, 999).error().code, ErrorCode::bad_data);
  EXPECT_EQ(check_hits("kprobe:f", 1000, 1100).error().code, ErrorCode::bad_data);
  EXPECT_EQ(check_hits("kprobe:f", 1000, 999).error().message,
            "study probes: kprobe:f was hit 999 times, not 1000");
}

TEST(ProbeCost, IsWhatAHitAddsToTheCall) {
  EXPECT_DOUBLE_EQ(extra_of(5000, 900, 1100, 100), 40);
  EXPECT_DOUBLE_EQ(extra_of(900, 900, 1100, 100), -1);  // noise may say so
  EXPECT_DOUBLE_EQ(extra_of(5000, 900, 1100, 0), 0);
}

TEST(ProbeCost, IsAMultipleOfTheRawExit) {
  ProbesStudy study;
  ProbeRow row;
  row.extra_ns = spread_of(std::vector<double>{1500, 2000, 9000});
  EXPECT_FALSE(study.times_raw(row));
  study.raw_ns = spread_of(std::vector<double>{1000, 1000});
  EXPECT_DOUBLE_EQ(study.times_raw(row).value(), 2);
  row.extra_ns = {};
  EXPECT_FALSE(study.times_raw(row));
}

TEST(ProbeKinds, AreOrdersOfTheirKind) {
  const ProbeSite site{.address = GuestVirt(0xffffffff81000000), .function = "__x64_sys_getppid"};
  const ProbeFetch text = first_argument_text(site, 112);
  EXPECT_EQ(text.step_count, 1);  // behind the struct pt_regs *
  EXPECT_EQ(text.steps[0], 112);
  EXPECT_TRUE(order_for(ProbeKind::counting, 1, site, text).counts_only);
  EXPECT_TRUE(order_for(ProbeKind::call, 1, site, text).site.at_return);
  EXPECT_EQ(order_for(ProbeKind::event, 1, site, text).fetches.size(), 0u);
  EXPECT_EQ(order_for(ProbeKind::event_string, 1, site, text).fetches.size(), 1u);
  Hit hit;
  hit.task = {.task = GuestVirt(1), .pid = 1, .tgid = 1, .comm = {"init"}};
  for (const ProbeKind kind : {ProbeKind::rejected_pid, ProbeKind::rejected_comm}) {
    EXPECT_FALSE(passes(order_for(kind, 1, site, text).filter, hit)) << name_of(kind);
  }
  EXPECT_EQ(first_argument_text({.function = "getname_flags"}, 112).step_count, 0);
}

TEST(ProbeKinds, ThatNeedAnotherEngineAreTogether) {
  const auto kinds = kinds_of_engine({.stops_guest = false});
  ASSERT_GT(kinds.size(), 3u);
  EXPECT_EQ(kinds.back(), ProbeKind::unwatched);
  EXPECT_EQ(kinds[kinds.size() - 2], ProbeKind::rejected_vm);
  EXPECT_EQ(kinds[kinds.size() - 3], ProbeKind::rejected_address);
  EXPECT_EQ(kinds_of_engine({.stops_guest = true}).size(), 1u);
}

TEST(ToldTime, IsTheLastOfItsLines) {
  EXPECT_EQ(parse_told_ns("processes 3\nns 1234\n"), 1234u);
  EXPECT_EQ(parse_told_ns("ns 1\nns 2"), 2u);
  EXPECT_EQ(parse_told_ns("ns 5 \r\n"), 5u);
  for (const char* none :
       {"", "ns", "ns x", "ns 12ms", "ms 3", "ns -1", "ns 99999999999999999999999"}) {
    EXPECT_FALSE(parse_told_ns(none)) << none;
  }
}

CallCommand::Meanwhile counting(unsigned& times) {
  return {.every = 1ms, .run = [&]() -> Result<void> {
            ++times;
            return {};
          }};
}

TEST(CallCommandRun, TellsTheNumberAndTakesTheTime) {
  unsigned times = 0;
  const auto run = CallCommand("sleep 0.05; echo \"ns $CALLS\"").run(321, 30, counting(times));
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_EQ(run->told_ns, 321u);
  EXPECT_GE(run->elapsed_ns, 50'000'000u);
  EXPECT_GT(times, 0u);
  EXPECT_FALSE(CallCommand("true").run(1, 30, counting(times))->told_ns);
}

TEST(CallCommandRun, SaysWhyItFailed) {
  unsigned times = 0;
  const auto failed =
      CallCommand("echo first; echo no such guest >&2; exit 3").run(1, 30, counting(times));
  EXPECT_EQ(failed.error().code, ErrorCode::os);
  EXPECT_EQ(failed.error().message,
            "the command that makes the guest call failed: exit status 3: no such guest");
  EXPECT_NE(CallCommand("kill -9 $$").run(1, 30, counting(times)).error().message.find("signal 9"),
            std::string::npos);
}

TEST(CallCommandRun, EndsWithUsAndInTime) {
  unsigned times = 0;
  EXPECT_EQ(CallCommand("sleep 100").run(1, 0.05, counting(times)).error().code,
            ErrorCode::timeout);
  const CallCommand::Meanwhile gone{
      .every = 1ms, .run = []() -> Result<void> { return Error{.code = ErrorCode::vm_gone}; }};
  EXPECT_EQ(CallCommand("sleep 100").run(1, 30, gone).error().code, ErrorCode::vm_gone);
}

TEST(CallCommandRun, TalksAsMuchAsItWants) {
  unsigned times = 0;
  const auto run =
      CallCommand("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; echo ns 7")
          .run(1, 60, counting(times));
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_EQ(run->told_ns, 7u);
}

TEST(ProbesDocument, HasEachRowWithWhatItCost) {
  ProbesStudy study;
  study.raw_ns = spread_of(std::vector<double>{2000});
  study.rows.push_back({.engine = "kvm",
                        .kind = ProbeKind::event,
                        .calls = 10,
                        .hits = 10,
                        .told = 9,
                        .lost = 1,
                        .extra_ns = spread_of(std::vector<double>{3000})});
  study.rows.push_back({.engine = "gdbstub", .error = "no monitor"});
  const Json document = probes_document({}, {}, study);
  EXPECT_EQ(document["schema"], "vmsight.study.probes/1");
  EXPECT_EQ(document["probes"][0]["kind"], "event");
  EXPECT_EQ(document["probes"][0]["lost"], 1);
  EXPECT_DOUBLE_EQ(document["probes"][0]["times_raw_exit"].get<double>(), 1.5);
  EXPECT_EQ(document["probes"][1]["error"], "no monitor");
  EXPECT_TRUE(document["probes"][1]["extra_ns"].is_null());
  EXPECT_EQ(document["published"].size(), 3u);
}

}  // namespace
}  // namespace vmsight::study_probes_test
