#include "base/utf8.h"

#include <gtest/gtest.h>

namespace vmsight::base_utf8_test {
namespace {

TEST(ForJson, KeepsTextAndMarksWhatIsNotUtf8) {
  EXPECT_EQ(for_json("a\nb\x1b"), "a\nb\x1b");  // JSON escapes these itself
  EXPECT_EQ(for_json("caf\xe9 \u4f60"), "caf\\xe9 \u4f60");
}

TEST(DecodeUtf8, NeverTakesMoreThanThereIs) {
  for (const std::string_view text : {"\xf0", "\xf0\x9f", "\xf0\x9f\x98"}) {
    EXPECT_FALSE(decode_utf8(text).valid);
    EXPECT_EQ(decode_utf8(text).length, 1u);
  }
  EXPECT_EQ(decode_utf8("\U0001F600").code_point, 0x1F600u);
}

}  // namespace
}  // namespace vmsight::base_utf8_test
