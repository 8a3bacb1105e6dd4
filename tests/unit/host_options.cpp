#include "host/option_list.h"

#include <gtest/gtest.h>

namespace vmsight::host_options_test {
namespace {

TEST(OptionList, SplitsAtSingleCommas) {
  auto list = OptionList::parse("socket,id=a,path=/x,,y,server,nowait,wait=off", "backend");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->get("backend"), "socket");
  EXPECT_EQ(list->get("path"), "/x,y");
  EXPECT_TRUE(list->is_on("server"));
  EXPECT_FALSE(list->is_on("wait", true));
  EXPECT_FALSE(list->find("absent"));
}

TEST(OptionList, FirstPartWithEqualsIsNotImplied) {
  auto list = OptionList::parse("size=1G,slots=2", "size");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->size("size"), 1u << 30);
  EXPECT_EQ(list->number("slots"), 2u);
}

TEST(OptionList, LastOfAKeyWins) { EXPECT_EQ(OptionList::parse("a=1,a=2")->get("a"), "2"); }

TEST(OptionList, ReadsJson) {
  auto list = OptionList::parse(
      R"({"qom-type":"memory-backend-memfd","share":true,"size":536870912,"deep":{"x":{"y":"z"}}})");
  ASSERT_TRUE(list);
  EXPECT_TRUE(list->is_on("share"));
  EXPECT_EQ(list->size("size"), 512u << 20);
  EXPECT_EQ(list->get("deep.x.y"), "z");
}

TEST(OptionList, RefusesBrokenJson) {
  for (const char* text : {"{", R"({"a":)", "{]", "{\"a\":1}x"}) {
    EXPECT_FALSE(OptionList::parse(text)) << text;
  }
}

TEST(ParseSize, KnowsQemusSuffixes) {
  constexpr std::uint64_t mebibyte = 1u << 20;
  EXPECT_EQ(parse_size("512", mebibyte), 512 * mebibyte);
  EXPECT_EQ(parse_size("512M", 1), 512 * mebibyte);
  EXPECT_EQ(parse_size("524288k", 1), 512 * mebibyte);
  EXPECT_EQ(parse_size("0.5G", 1), 512 * mebibyte);
  EXPECT_EQ(parse_size("1.5g", mebibyte), 1536 * mebibyte);
  EXPECT_EQ(parse_size("4096B", mebibyte), 4096u);
  EXPECT_EQ(parse_size("0x20000000", 1), 512 * mebibyte);
  EXPECT_EQ(parse_size("0x1b", 1), 0x1bu);
}

TEST(ParseSize, RefusesTheRest) {
  for (const char* text : {"", "M", "x", "-1", "1MM", "1 M", "17179869184G", "99999999999999999999",
                           "1e3", "nan", "inf", "0x"}) {
    EXPECT_FALSE(parse_size(text, 1)) << text;
  }
}

}  // namespace
}  // namespace vmsight::host_options_test
