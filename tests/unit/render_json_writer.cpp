#include "render/json_writer.h"

#include <gtest/gtest.h>
#include <random>

#include "render/escape.h"
#include "render/json.h"

namespace vmsight::render_json_writer_test {
namespace {

std::string written(std::string_view text) {
  JsonWriter writer;
  writer.text(text);
  return std::string(writer.written());
}

/// What a tree of the same text is written as.
std::string dumped(std::string_view text) { return dump(Json(for_json(text))); }

TEST(JsonWriter, WritesTextAsATreeDoes) {
  for (const std::string_view text :
       {std::string_view(""), std::string_view("plain"), std::string_view("a\"b\\c/d"),
        std::string_view("\b\f\n\r\t\x01\x1f\x7f"), std::string_view("nul\0nul", 7),
        std::string_view("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf"),
        std::string_view("\xff\xc3(\xed\xa0\x80\xf0\x9f"), std::string_view("\xef\xbf\xbf")}) {
    EXPECT_EQ(written(text), dumped(text));
  }
  for (int c = 0; c < 256;
       ++c) {  // at each place of a text that is looked at eight bytes at a time
    for (std::size_t at = 0; at < 20; ++at) {
      std::string text(20, '~');
      text[at] = static_cast<char>(c);
      ASSERT_EQ(written(text), dumped(text)) << c << " at " << at;
    }
  }
  std::mt19937 chance(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string text(chance() % 12, '\0');
    const bool is_wide = chance() % 2 == 0;
    for (char& c : text) c = static_cast<char>(is_wide ? 0x80 + chance() % 128 : chance() % 256);
    ASSERT_EQ(written(text), dumped(text));
  }
}

TEST(JsonWriter, WritesNumbersAsATreeDoes) {
  const auto number = [](auto value) {
    JsonWriter writer;
    writer.number(value);
    return std::string(writer.written());
  };
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{17}, ~std::uint64_t{0}}) {
    EXPECT_EQ(number(value), dump(value));
  }
  for (const std::int64_t value : {std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
    EXPECT_EQ(number(value), dump(value));
  }
  for (const double value : {0.0, 2000.0, 2593.906, 1e300, -0.1}) {
    EXPECT_EQ(number(value), dump(value));
  }
}

TEST(JsonWriter, SetsCommasBetween) {
  JsonWriter writer;
  writer.begin_object();
  writer.key("a");
  writer.begin_list();
  writer.end_list();
  writer.key("b");
  writer.begin_list();
  writer.boolean(true);
  writer.null();
  writer.begin_object();
  writer.end_object();
  writer.end_list();
  writer.key("c");
  writer.text("x");
  writer.end_object();
  EXPECT_EQ(writer.written(), R"({"a":[],"b":[true,null,{}],"c":"x"})");
  writer.clear();
  writer.null();
  EXPECT_EQ(writer.written(), "null");
}

}  // namespace
}  // namespace vmsight::render_json_writer_test
