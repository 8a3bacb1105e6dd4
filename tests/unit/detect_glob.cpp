#include "detect/glob.h"

#include <fnmatch.h>
#include <gtest/gtest.h>
#include <random>
#include <string>

namespace vmsight::detect_glob_test {
namespace {

using namespace detect;

TEST(Glob, MatchesAsFnmatch) {
  const char* patterns[] = {"",      "*",     "a",     "a*",    "*a",    "a*b",    "a?b",
                            "?",     "??",    "[ab]",  "[!a]",  "[^a]b", "[a-c]*", "*[x-z]",
                            "\\*",   "a\\",   "[]a]",  "[!]a]", "[a",    "[",      "[a-]",
                            "**a**", "*a*b*", "a[b]c", "[-a]",  "a*a*a", "\\[a]",  "*/x?"};
  const char* texts[] = {"",   "a",  "b",   "ab",  "aab", "axb",  "*", "a*", "]",    "-",    "[a",
                         "a]", "xz", "a/b", "abc", "aaa", "abab", "[", "^",  "[a]b", "q/xy", "!"};
  for (const char* pattern : patterns) {
    // A backslash at the end is an error to fnmatch, and itself to us.
    if (std::string_view(pattern) == "a\\") continue;
    for (const char* text : texts) {
      EXPECT_EQ(matches_glob(pattern, text), ::fnmatch(pattern, text, 0) == 0)
          << pattern << " " << text;
    }
  }
  EXPECT_TRUE(matches_glob("a\\", "a\\"));
}

TEST(Glob, MatchesAsFnmatchWhateverIsWritten) {
  std::mt19937 random(1);
  const auto letters = [&](std::string_view from, unsigned most) {
    std::string made;
    for (unsigned n = random() % (most + 1); n > 0; --n) made += from[random() % from.size()];
    return made;
  };
  for (int i = 0; i < 200'000; ++i) {
    const std::string pattern = letters("ab*?*", 8), text = letters("ab", 8);
    ASSERT_EQ(matches_glob(pattern, text), ::fnmatch(pattern.c_str(), text.c_str(), 0) == 0)
        << pattern << " " << text;
  }
}

TEST(Glob, AnyBytesAreText) {
  EXPECT_TRUE(matches_glob("a?b", std::string_view("a\0b", 3)));
  EXPECT_TRUE(matches_glob("*\xff", "\xfe\xff"));
  EXPECT_TRUE(matches_glob("[\x80-\xff]", "\xc3"));
  EXPECT_FALSE(matches_glob("[a-z]", "\xc3"));
}

TEST(Glob, ManyStarsTakeNoLongTime) {
  std::string pattern;
  for (int i = 0; i < 80; ++i) pattern += "a*";
  EXPECT_FALSE(matches_glob(pattern + "b", std::string(100'000, 'a')));
  EXPECT_TRUE(matches_glob(pattern, std::string(100'000, 'a')));
}

}  // namespace
}  // namespace vmsight::detect_glob_test
