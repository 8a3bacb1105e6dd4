// Texts of rules for tests, and what is wrong with them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "detect/rule_file.h"

namespace vmsight::detect_test {

using namespace detect;
using Texts = std::vector<std::string>;

inline RuleSet loaded(const std::string& text) { return load_rule_texts({{"r.yaml", text}}); }

inline Texts messages(const RuleSet& set) {
  Texts all;
  for (const Error& error : set.errors) {
    all.push_back(error.message);
    EXPECT_EQ(error.message.find('\n'), std::string::npos);
    EXPECT_EQ(error.hint.find('\n'), std::string::npos);
  }
  return all;
}

inline Texts names(const RuleSet& set) {
  Texts all;
  for (const Rule& rule : set.rules) all.push_back(rule.name);
  return all;
}

inline RuleSet good(const std::string& text) {
  RuleSet set = loaded(text);
  EXPECT_THAT(messages(set), testing::IsEmpty()) << text;
  return set;
}

/// A rule that is right, with its kind and what else it shall have.
inline std::string rule(const std::string& name, const std::string& more = "  probe: kprobe:x\n") {
  return "- rule: " + name + "\n  desc: d\n  output: o\n  priority: notice\n" + more;
}

/// The only error of the text.
inline Error only_error(const std::string& text) {
  const RuleSet set = loaded(text);
  EXPECT_THAT(messages(set), testing::SizeIs(1)) << text;
  return set.errors.empty() ? Error() : set.errors.front();
}

/// A text, and how its first error and its hint begin.
struct Wrong {
  std::string text, message, hint = "";
};

}  // namespace vmsight::detect_test
