#include "detect/rule_file.h"

#include "unit/detect_rules.h"

namespace vmsight::detect_rule_exceptions_test {
namespace {

using namespace detect_test;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(RuleExceptions, AreReadAsFalcoWritesThem) {
  const RuleSet set = good(rule("x", R"yaml(  probe: p
  exceptions:
    - name: alone
      fields: comm
      values: [a, b, shells]
    - name: alone_list
      fields: [comm]
      comps: [in]
      values: [[[a, b]], [c]]
    - name: mixed
      fields: [comm, path, uid]
      comps: [in, startswith, "="]
      values:
        - [[a, b], /etc, 3]
        - ["(c, d)", /usr, 4]
    - name: default_equal
      fields: [comm, uid]
      values: [[a, 1]]
    - name: single
      fields: comm
      comps: startswith
      values: [a, b]
    - name: none_yet
      fields: [comm]
)yaml"));
  const auto& all = set.rules.at(0).exceptions;
  ASSERT_THAT(all, SizeIs(6));
  EXPECT_THAT(all[0].comps, ElementsAre("in"));
  EXPECT_THAT(all[0].values.at(0).at(0).items, ElementsAre("a", "b", "shells"));
  EXPECT_THAT(all[1].values.at(0).at(0).items, ElementsAre("a", "b", "c"));
  EXPECT_TRUE(all[2].values.at(0).at(0).is_list);
  EXPECT_FALSE(all[2].values.at(1).at(0).is_list);
  EXPECT_THAT(all[3].comps, ElementsAre("=", "="));
  EXPECT_THAT(all[4].values, SizeIs(2));
  EXPECT_THAT(all[5].values, IsEmpty());
}

TEST(RuleExceptions, ErrorsSayWhatIsWrong) {
  const std::pair<const char*, const char*> all[] = {
      {"exceptions: known", "r.yaml:6: rule \"x\": key \"exceptions\": a list was expected"},
      {"exceptions: [known]",
       "r.yaml:6: rule \"x\": key \"exceptions\": each of them needs name, "
       "fields and values"},
      {"exceptions: [{fields: a}]", "r.yaml:6: rule \"x\": it needs the key \"exceptions.name\""},
      {"exceptions: [{name: a}]", "r.yaml:6: rule \"x\": it needs the key \"exceptions.fields\""},
      {"exceptions: [{name: a, fields: [b, c], values: [[1]]}]",
       "r.yaml:6: rule \"x\": key \"exceptions.values\": a row in line 6 needs one value for each "
       "of its fields"},
      {"exceptions: [{name: a, fields: [b], values: [[]]}]",
       "r.yaml:6: rule \"x\": key \"exceptions.values\": a row in line 6"},
      {"exceptions: [{name: a, fields: [b], values: 3}]",
       "r.yaml:6: rule \"x\": key \"exceptions.values\": a list was expected"},
      {"exceptions: [{name: a, fields: [b, c], comps: [=]}]",
       "r.yaml:6: rule \"x\": key \"exceptions.comps\": there must be as many as fields"},
      {"exceptions: [{name: a, fields: [b], comps: [pmatch]}]",
       "r.yaml:6: rule \"x\": key \"exceptions.comps\": \"pmatch\" is no comparison"},
      {"exceptions: [{name: a, fields: [b], comps: [exists]}]",
       "r.yaml:6: rule \"x\": key \"exceptions.comps\": \"exists\" is no comparison"},
      {"exceptions: [{name: a, fields: [b], value: [1]}]",
       "r.yaml:6: rule \"x\": key \"exceptions.value\": it has no meaning here"},
      {"exceptions: [{name: a, fields: b}, {name: a, fields: b}]",
       "r.yaml:6: rule \"x\": key \"exceptions\": two are called \"a\""},
      {"exceptions: [{name: a, fields: [b], values: [[[1, 2]]]}]",
       "r.yaml:1: rule \"x\": exception \"a\": '=' takes one value, not a list"},
      {"exceptions: [{name: a, fields: [b, c], comps: [in, =], values: [['(1, 2', 3]]}]",
       "r.yaml:1: rule \"x\": exception \"a\": a parenthesis is not closed"},
  };
  for (const auto& [text, message] : all) {
    const Error error = only_error(rule("x", std::string("  probe: p\n  ") + text + "\n"));
    EXPECT_TRUE(error.message.starts_with(message)) << text << "\n" << error.message;
  }
}

}  // namespace
}  // namespace vmsight::detect_rule_exceptions_test
