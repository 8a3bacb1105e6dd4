#include "probe/filter.h"

#include <gtest/gtest.h>

namespace vmsight::probe_filter_test {
namespace {

using Field = FilterTerm::Field;

std::optional<FilterName> names(std::string_view name) {
  if (name == "dfd")
    return FilterName{.term = {.field = Field::fetch, .index = 0, .bits = 32, .is_signed = true}};
  if (name == "filename")
    return FilterName{.term = {.field = Field::fetch, .index = 1}, .is_text = true};
  if (name == "size") return FilterName{.term = {.field = Field::fetch, .index = 2}};
  if (name == "uid") return FilterName{.term = {.field = Field::fetch, .index = 2, .bits = 32}};
  if (name == "rax")
    return FilterName{.term = {.field = Field::fetch, .index = 3}, .is_typed = false};
  return std::nullopt;
}

Hit a_hit() {
  Hit hit{
      {.vcpu = 1,
       .task = {.task = GuestVirt(0xffff888000000000), .pid = 12, .tgid = 10, .comm = {"cat"}}}};
  hit.fetched = {{.ok = true, .value = 0x12345678ffffff9c},  // -100 in 32 bits
                 {.ok = true, .value = 0x7fff0000, .bytes = "/etc/passwd"},
                 {.ok = true, .value = ~0ULL},
                 {.ok = true, .value = 0xffffffff}};
  return hit;
}

bool passes_text(std::string_view text, const Hit& hit = a_hit()) {
  auto filter = parse_filter(text, names);
  EXPECT_TRUE(filter) << text << ": " << filter.error().message;
  return filter && passes(*filter, hit);
}

TEST(ProbeFilter, ComparesWhatAProbeKnows) {
  for (const char* text :
       {"pid == 12", "tgid != 12", "cpu < 2", "cpu >= 1", "comm == cat", "comm == \"cat\"",
        "comm != 'dog'", "dfd == -100", "dfd < 0", "filename == /etc/passwd", "size > 5",
        "size == 0xffffffffffffffff", "pid==12&&tgid==10", "pid == 1 || tgid == 10", "!(pid == 1)",
        "!pid == 1 && !!pid == 12", "(pid == 1 || pid == 12) && cpu == 1",
        "pid == 12 || pid == 1 && pid == 2"}) {
    EXPECT_TRUE(passes_text(text)) << text;
  }
  for (const char* text : {"pid == 13", "comm == ca", "dfd == 100", "size < 5",
                           "pid == 12 && tgid == 11", "(pid == 12 || pid == 1) && pid == 2"}) {
    EXPECT_FALSE(passes_text(text)) << text;
  }
}

TEST(ProbeFilter, WhatCouldNotBeReadPassesNoTerm) {
  Hit hit = a_hit();
  hit.fetched[1].ok = false;
  EXPECT_FALSE(passes_text("filename == /etc/passwd", hit));
  EXPECT_FALSE(passes_text("filename != /etc/passwd", hit));
  hit.fetched.clear();
  EXPECT_FALSE(passes_text("dfd == -100", hit));
  hit.task = {};
  EXPECT_FALSE(passes_text("pid != 12", hit));
}

TEST(ProbeFilter, NumbersHaveTheSignOfTheirType) {
  for (const char* text : {"dfd == 0xffffff9c", "dfd != 0xffffffff", "uid == -1",
                           "uid == 4294967295", "size == -1", "rax == -1", "rax < 0", "rax <= -1",
                           "rax == 4294967295", "rax > 4096", "rax < 5 || rax > 5", "uid >= 0"}) {
    EXPECT_TRUE(passes_text(text)) << text;
  }
  for (const char* text : {"uid != -1", "rax >= 0", "rax > 0", "rax == -2", "rax < 4096"})
    EXPECT_FALSE(passes_text(text)) << text;
  for (const char* text : {"uid < 0", "uid > -1", "uid == 4294967296", "dfd == 4294967295",
                           "dfd < 0xffffffff", "dfd == -2147483649", "size < 0"}) {
    const auto filter = parse_filter(text, names);
    ASSERT_FALSE(filter) << text;
    EXPECT_EQ(filter.error().code, ErrorCode::usage);
  }
}

TEST(ProbeFilter, NullAndCutTextsAreNone) {
  Hit hit = a_hit();
  hit.fetched[1].value = 0x7fff0000;
  EXPECT_TRUE(passes_text("filename == /etc/passwd", hit));
  hit.fetched[1].cut = true;
  EXPECT_FALSE(passes_text("filename == /etc/passwd", hit));
  EXPECT_TRUE(passes_text("filename != /etc/passwd", hit));
  hit.fetched[1] = {.ok = true};
  EXPECT_FALSE(passes_text("filename == ''", hit));
  EXPECT_TRUE(passes_text("filename != ''", hit));
}

TEST(ProbeFilter, RefusesGarbage) {
  std::string many = "pid == 1";
  for (int i = 0; i < 40; ++i) many += " && pid == 1";
  for (const std::string& text : {std::string(),
                                  std::string("pid"),
                                  std::string("pid =="),
                                  std::string("== 1"),
                                  std::string("pid = 1"),
                                  std::string("pid == x"),
                                  std::string("pid == 1 &&"),
                                  std::string("pid == 1 pid"),
                                  std::string("(pid == 1"),
                                  std::string("pid == 1)"),
                                  std::string("nothing == 1"),
                                  std::string("comm < cat"),
                                  std::string("comm == \"cat"),
                                  std::string("comm =="),
                                  std::string("pid == 99999999999999999999"),
                                  std::string("\xff\x00\x01", 3),
                                  std::string(200, '('),
                                  std::string(200, '!'),
                                  std::string(10000, 'a'),
                                  many}) {
    const auto filter = parse_filter(text, names);
    ASSERT_FALSE(filter) << text.substr(0, 40);
    EXPECT_EQ(filter.error().code, ErrorCode::usage);
  }
}

TEST(ProbeFilter, MalformedStepsPassNothing) {
  EXPECT_FALSE(passes({.steps = {{FilterStep::Kind::both}}}, a_hit()));
  EXPECT_FALSE(passes({.steps = {{FilterStep::Kind::term, 7}}}, a_hit()));
  EXPECT_TRUE(passes({}, a_hit()));
}

}  // namespace
}  // namespace vmsight::probe_filter_test
