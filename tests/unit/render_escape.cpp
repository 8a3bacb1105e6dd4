#include "render/escape.h"

#include <gtest/gtest.h>

namespace vmsight::render_escape_test {
namespace {

TEST(ForTerminal, LeavesPrintableTextAlone) {
  EXPECT_EQ(for_terminal("/usr/bin/nginx -g 'daemon off;'"), "/usr/bin/nginx -g 'daemon off;'");
  EXPECT_EQ(for_terminal("Grüße \u4f60\u597d"), "Grüße \u4f60\u597d");
  EXPECT_EQ(for_terminal(""), "");
}

TEST(ForTerminal, DefusesEscapeSequencesAndControls) {
  EXPECT_EQ(for_terminal("\x1b[31mred\x1b[0m"), "\\x1b[31mred\\x1b[0m");
  EXPECT_EQ(for_terminal("a\nb\tc\rd\x07"), "a\\x0ab\\x09c\\x0dd\\x07");
  EXPECT_EQ(for_terminal(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(for_terminal("\x7f"), "\\x7f");
  // CSI as a C1 control, encoded and bare.
  EXPECT_EQ(for_terminal("\xc2\x9b"
                         "31m"),
            "\\u{009b}31m");
  EXPECT_EQ(for_terminal("\x9b"
                         "31m"),
            "\\x9b31m");
}

TEST(ForTerminal, DefusesCharactersThatReorderOrHideText) {
  EXPECT_EQ(for_terminal("exe\u202etxt.gnp"), "exe\\u{202e}txt.gnp");
  EXPECT_EQ(for_terminal("a\u2066b\u200bc\ufeff"), "a\\u{2066}b\\u{200b}c\\u{feff}");
  EXPECT_EQ(for_terminal("a\u2028b"), "a\\u{2028}b");
}

TEST(ForTerminal, EscapesInvalidUtf8ByteByByte) {
  EXPECT_EQ(for_terminal("\xff\xfe"), "\\xff\\xfe");
  EXPECT_EQ(for_terminal("\xc0\xaf"), "\\xc0\\xaf");                    // overlong '/'
  EXPECT_EQ(for_terminal("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // a surrogate
  EXPECT_EQ(for_terminal("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
  EXPECT_EQ(for_terminal("ab\xe4\xbd"), "ab\\xe4\\xbd");                // cut off
}

TEST(Clip, EndsBetweenCharacters) {
  EXPECT_EQ(clip("abcdef", 3), "abc");
  EXPECT_EQ(clip("äöü", 2), "äö");
  EXPECT_EQ(clip("ab", 10), "ab");
  EXPECT_EQ(clip("ab", 0), "");
}

}  // namespace
}  // namespace vmsight::render_escape_test
