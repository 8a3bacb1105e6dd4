#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "detect/sink.h"

namespace vmsight::detect_alarm_format_test {
namespace {

using namespace detect;
using testing::HasSubstr;
using Json = nlohmann::json;

/// 2026-11-29T20:14:05.000000007Z.
constexpr std::uint64_t moment = 1'795'983'245'000'000'007;

Alarm an_alarm() {
  return {.rule = "shell of a server",
          .priority = Priority::warning,
          .tags = {"shell", "mitre"},
          .vm = "web",
          .time_ns = moment,
          .output = "sh was started",
          .fields = {{"comm", std::string("sh")},
                     {"pid", std::int64_t{-3}},
                     {"size", ~std::uint64_t{0}},
                     {"traced", true},
                     {"task", std::string("0xffff888000000000")},
                     {"args", std::vector<std::string>{"sh", "-c"}},
                     {"gone", Value()}},
          .evidence = {{"hit", 1}},
          .first_ns = moment,
          .last_ns = moment};
}

Json parsed(const Alarm& alarm, AlarmFormat format, const std::string& host = "node1") {
  const std::string line = format_alarm(alarm, format, host);
  EXPECT_EQ(line.find_first_not_of("\t"), 0u);
  for (const char c : line) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << line;
  return Json::parse(line);
}

TEST(Rfc3339, HasNanosecondsInUtc) {
  EXPECT_EQ(rfc3339(moment), "2026-11-29T20:14:05.000000007Z");
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(rfc3339(~std::uint64_t{0}), "2554-07-21T23:34:33.709551615Z");
}

TEST(AlarmText, IsALine) {
  EXPECT_EQ(format_alarm(an_alarm(), AlarmFormat::text, "node1"),
            "2026-11-29T20:14:05.000000007Z: Warning shell of a server: sh was started (vm=web)");
  Alarm sum = an_alarm();
  sum.count = 17;
  sum.last_ns = moment + 1'000'000'000;
  EXPECT_EQ(alarm_text(sum),
            "Warning shell of a server: sh was started (vm=web, 17 times from "
            "2026-11-29T20:14:05.000000007Z to 2026-11-29T20:14:06.000000007Z)");
}

TEST(AlarmText, HostileNamesAreEscaped) {
  Alarm alarm = an_alarm();
  alarm.rule = "r\n\x1b[2J";
  alarm.vm = "v\nm\xff";
  alarm.output = "o\x1b[2J\n";
  EXPECT_EQ(alarm_text(alarm), "Warning r \\x1b[2J: o\\x1b[2J  (vm=v\\x0am\\xff)");
}

TEST(AlarmJson, HasFalcosNames) {
  const Json json = parsed(an_alarm(), AlarmFormat::json);
  EXPECT_EQ(json["time"], "2026-11-29T20:14:05.000000007Z");
  EXPECT_EQ(json["rule"], "shell of a server");
  EXPECT_EQ(json["priority"], "Warning");
  EXPECT_EQ(json["output"], "sh was started");
  EXPECT_EQ(json["tags"], Json({"shell", "mitre"}));
  EXPECT_EQ(json["source"], "vmsight");
  EXPECT_EQ(json["hostname"], "node1");
  EXPECT_EQ(json["vm"], "web");
  EXPECT_EQ(json["evidence"], Json({{"hit", 1}}));
  EXPECT_EQ(json["count"], 1);
  EXPECT_EQ(json["first"], json["time"]);
  EXPECT_EQ(json["last"], json["time"]);
  EXPECT_EQ(json["output_fields"], Json({{"comm", "sh"},
                                         {"pid", -3},
                                         {"size", ~std::uint64_t{0}},
                                         {"traced", true},
                                         {"task", "0xffff888000000000"},
                                         {"args", {"sh", "-c"}},
                                         {"gone", nullptr}}));
  EXPECT_EQ(json.size(), 13u);
}

TEST(AlarmJson, BytesThatAreNotUtf8AreMarked) {
  Alarm alarm = an_alarm();
  alarm.rule = "r\xff";
  alarm.vm = "v\xfe";
  alarm.tags = {"t\xfd"};
  alarm.output = "caf\xe9 gr\xc3\xbc\xc3\x9f";
  alarm.fields = {{"a\xff", std::string("b\0\xff\n", 4)},
                  {"list", std::vector<std::string>{"\xff"}}};
  alarm.evidence = {{"k\xff", "v\xff"}, {"deep", {{"er", {"\xff"}}}}};
  const Json json = parsed(alarm, AlarmFormat::json, "h\xff");
  EXPECT_EQ(json["rule"], "r\\xff");
  EXPECT_EQ(json["vm"], "v\\xfe");
  EXPECT_EQ(json["tags"][0], "t\\xfd");
  EXPECT_EQ(json["output"], "caf\\xe9 gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(json["hostname"], "h\\xff");
  EXPECT_EQ(json["output_fields"]["a\\xff"], std::string("b\0\\xff\n", 7));
  EXPECT_EQ(json["output_fields"]["list"][0], "\\xff");
  EXPECT_EQ(json["evidence"]["k\\xff"], "v\\xff");
  EXPECT_EQ(json["evidence"]["deep"]["er"][0], "\\xff");
}

TEST(AlarmJson, DeepEvidenceEnds) {
  Alarm alarm = an_alarm();
  alarm.evidence = Json::array();
  for (int i = 0; i < 1000; ++i) alarm.evidence = Json::array({std::move(alarm.evidence)});
  EXPECT_THAT(format_alarm(alarm, AlarmFormat::json, "h"), HasSubstr("(nested too deep)"));
}

TEST(AlarmOcsf, IsADetectionFinding) {
  Alarm alarm = an_alarm();
  alarm.count = 3;
  alarm.last_ns = moment + 2'000'000'000;
  const Json json = parsed(alarm, AlarmFormat::ocsf);
  EXPECT_EQ(json["class_uid"], 2004);
  EXPECT_EQ(json["category_uid"], 2);
  EXPECT_EQ(json["activity_id"], 1);
  EXPECT_EQ(json["type_uid"], 200401);
  EXPECT_EQ(json["severity_id"], 3);
  EXPECT_EQ(json["severity"], "Medium");
  EXPECT_EQ(json["time"], moment / 1'000'000);
  EXPECT_EQ(json["start_time"], moment / 1'000'000);
  EXPECT_EQ(json["end_time"], moment / 1'000'000 + 2000);
  EXPECT_EQ(json["count"], 3);
  EXPECT_EQ(json["message"], "sh was started");
  EXPECT_EQ(json["metadata"]["version"], "1.1.0");
  EXPECT_EQ(json["metadata"]["product"]["name"], "vmsight");
  EXPECT_EQ(json["finding_info"]["title"], "shell of a server");
  EXPECT_EQ(json["finding_info"]["types"], Json({"shell", "mitre"}));
  EXPECT_EQ(json["finding_info"]["analytic"]["type_id"], 1);
  EXPECT_EQ(json["resources"][0]["name"], "web");
  EXPECT_EQ(json["evidences"][0]["data"], Json({{"hit", 1}}));
  EXPECT_EQ(json["unmapped"]["output_fields"]["pid"], -3);
  const std::string uid = json["finding_info"]["uid"];
  EXPECT_FALSE(uid.empty());
  alarm.output = "another";
  EXPECT_NE(parsed(alarm, AlarmFormat::ocsf)["finding_info"]["uid"], uid);
}

TEST(AlarmOcsf, HasItsOwnSeverities) {
  const int ids[] = {6, 5, 5, 4, 3, 2, 1, 1};
  Alarm alarm = an_alarm();
  alarm.evidence = nullptr;
  for (unsigned i = 0; i < 8; ++i) {
    alarm.priority = static_cast<Priority>(i);
    const Json json = parsed(alarm, AlarmFormat::ocsf);
    EXPECT_EQ(json["severity_id"], ids[i]);
    EXPECT_FALSE(json.contains("evidences"));
  }
}

}  // namespace
}  // namespace vmsight::detect_alarm_format_test
