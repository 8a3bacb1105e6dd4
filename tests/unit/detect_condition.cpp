#include "detect/condition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "probe/filter.h"

namespace vmsight::detect_condition_test {
namespace {

using namespace detect;
using Kind = FieldType::Kind;
using testing::ElementsAre;
using testing::HasSubstr;
using Texts = std::vector<std::string>;

const FieldTable& names() {
  static const FieldTable table({{"comm", {Kind::text}},
                                 {"proc.name", {Kind::text}},
                                 {"fd.name", {Kind::text}},
                                 {"pid", {Kind::signed_number, 32}},
                                 {"uid", {Kind::number, 32}},
                                 {"size", {Kind::number}},
                                 {"rax", {Kind::untyped}},
                                 {"address", {Kind::address}},
                                 {"traced", {Kind::boolean}},
                                 {"args", {Kind::text_list}},
                                 {"arg[0]", {Kind::text}},
                                 {"gone", {Kind::text}},
                                 {"gone.number", {Kind::number}}});
  return table;
}

FieldValues values() {
  return FieldValues({{"comm", std::string("cat")},
                      {"proc.name", std::string("nginx")},
                      {"fd.name", std::string("/etc/passwd")},
                      {"pid", std::int64_t{12}},
                      {"uid", std::uint64_t{0xffffffff}},
                      {"size", ~std::uint64_t{0}},
                      {"rax", std::uint64_t{0xffffffff}},
                      {"address", std::uint64_t{0xffff888000000000}},
                      {"traced", true},
                      {"args", Texts{"cat", "-n", "/etc/passwd"}},
                      {"arg[0]", std::string("a b")}});
}

const Lists& lists() {
  static const Lists all = {{"shells", {"sh", "bash", "dash"}},
                            {"cats", {"cat", "lynx"}},
                            {"empty", {}},
                            {"ids", {"11", "12", "0x0d"}}};
  return all;
}

const Macros& macros() {
  static const Macros all = {
      {"is_cat", {"comm in (cats)", {"m.yaml", 1}}},
      {"is_root_cat", {"is_cat and not uid == 0", {"m.yaml", 2}}},
      {"either", {"pid == 1 or pid == 12", {"m.yaml", 3}}},
      {"a", {"b or is_cat", {"m.yaml", 4}}},
      {"b", {"not a", {"m.yaml", 5}}},
      {"wrong", {"comm is 3", {"m.yaml", 6}}},
      {"counts", {"count(pid, 1s) > 3", {"m.yaml", 7}}},
  };
  return all;
}

ConditionContext context() { return {&names(), &lists(), &macros()}; }

Condition compiled(std::string_view text) {
  auto made = Condition::compile(text, context());
  EXPECT_TRUE(made) << text << ": " << made.error().message;
  return made ? *made : Condition();
}

bool holds(std::string_view text) { return compiled(text).evaluate(values()); }

Error refused(std::string_view text) {
  auto made = Condition::compile(text, context());
  EXPECT_FALSE(made) << text;
  if (made) return {};
  EXPECT_EQ(made.error().code, ErrorCode::usage);
  EXPECT_EQ(made.error().message.find('\n'), std::string::npos);
  return made.error();
}

std::string why(std::string_view text) { return refused(text).message; }

TEST(Condition, ComparesAsFiltersDo) {
  for (const char* text : {"pid == 12",
                           "pid != 13",
                           "pid < 13",
                           "pid >= 12",
                           "comm == cat",
                           "comm == \"cat\"",
                           "comm != 'dog'",
                           "fd.name == /etc/passwd",
                           "size > 5",
                           "size == 0xffffffffffffffff",
                           "pid==12&&comm==cat",
                           "pid == 1 || comm == cat",
                           "!(pid == 1)",
                           "!pid == 1 && !!pid == 12",
                           "(pid == 1 || pid == 12) && comm == cat",
                           "pid == 12 || pid == 1 && pid == 2",
                           "pid = 12",
                           "fd.name=/etc/passwd",
                           "comm='cat'",
                           "address == 0xffff888000000000",
                           "arg[0] == 'a b'"}) {
    EXPECT_TRUE(holds(text)) << text;
  }
  for (const char* text : {"pid == 13", "comm == ca", "size < 5", "pid == 12 && comm == dog",
                           "(pid == 12 || pid == 1) && pid == 2", "comm == 'cat '"}) {
    EXPECT_FALSE(holds(text)) << text;
  }
}

TEST(Condition, HasTheWordsOfFalco) {
  for (const char* text : {"pid = 12 and comm = cat",
                           "pid = 1 or comm = cat",
                           "not pid = 1",
                           "not (pid = 1 or pid=2)",
                           "pid=12\n  and not comm in (dog, bird)\n",
                           "proc.name in (nginx, apache)",
                           "comm in (cats)",
                           "comm in (dog, cats)",
                           "comm in cats",
                           "comm in ('cat')",
                           "not comm in ('cats')",
                           "not comm in (empty)",
                           "not comm in ()",
                           "pid in (1, 12)",
                           "pid in (ids)",
                           "fd.name startswith /etc",
                           "fd.name startsWith '/etc/'",
                           "fd.name endswith passwd",
                           "fd.name endsWith passwd",
                           "fd.name contains c/p",
                           "fd.name glob /etc/*",
                           "fd.name glob '/*/p?ss[v-x]d'",
                           "not fd.name glob '/etc'",
                           "comm exists",
                           "not gone exists",
                           "traced",
                           "not traced or traced = true",
                           "!!traced"}) {
    EXPECT_TRUE(holds(text)) << text;
  }
  for (const char* text : {"comm in (dog)", "pid in (13, 11)", "fd.name startswith etc",
                           "not traced", "traced == false"}) {
    EXPECT_FALSE(holds(text)) << text;
  }
}

TEST(Condition, NotBindsCloserThanAndAndAndCloserThanOr) {
  EXPECT_TRUE(holds("not pid = 1 and pid = 12"));
  EXPECT_TRUE(holds("pid = 12 or pid = 12 and pid = 1"));
  EXPECT_FALSE(holds("(pid = 12 or pid = 12) and pid = 1"));
  EXPECT_FALSE(holds("not pid = 12 or pid = 1"));
}

TEST(Condition, ComparisonsWithWhatIsAbsentDoNotHold) {
  for (const char* text :
       {"gone == x", "gone != x", "gone in (x)", "gone contains ''", "gone glob '*'", "gone exists",
        "gone.number == 0", "gone.number != 0", "gone.number >= 0", "gone startswith ''"}) {
    EXPECT_FALSE(holds(text)) << text;
    EXPECT_TRUE(holds(std::string("not ") + text)) << text;
  }
}

TEST(Condition, ValuesOfAnotherKindThanTheirFieldDoNotHold) {
  const FieldValues odd({{"comm", std::uint64_t{3}},
                         {"pid", std::string("12")},
                         {"traced", std::string("true")},
                         {"args", std::int64_t{1}}});
  for (const char* text : {"comm == 3", "comm != 3", "pid == 12", "pid != 12", "traced",
                           "args contains 1", "args != 1"}) {
    EXPECT_FALSE(compiled(text).evaluate(odd)) << text;
  }
  // But a number may come with or without a sign.
  EXPECT_TRUE(compiled("pid == -1").evaluate(FieldValues({{"pid", std::uint64_t{0xffffffff}}})));
  EXPECT_TRUE(compiled("uid == 7").evaluate(FieldValues({{"uid", std::int64_t{7}}})));
}

TEST(Condition, NumbersHaveTheSignOfTheirTypeAsInFilters) {
  for (const char* text :
       {"uid == -1", "uid == 4294967295", "uid in (3, -1)", "size == -1", "pid != 0xffffffff",
        "rax == -1", "rax < 0", "rax <= -1", "rax == 4294967295", "rax > 4096", "uid >= 0",
        "rax in (-1)", "rax in (1, 4294967295)", "uid == '4294967295'"}) {
    EXPECT_TRUE(holds(text)) << text;
  }
  for (const char* text :
       {"uid != -1", "rax >= 0", "rax > 0", "rax == -2", "rax < 4096", "rax in (-2)"}) {
    EXPECT_FALSE(holds(text)) << text;
  }
  EXPECT_THAT(why("uid < 0"), HasSubstr("'uid' has no sign, it is never below 0"));
  for (const char* text : {"uid > -1", "uid == 4294967296", "pid == 4294967295", "pid < 0xffffffff",
                           "pid == -2147483649", "uid in (4294967296)"}) {
    EXPECT_THAT(why(text), HasSubstr("sign, which is never that")) << text;
  }
}

TEST(Condition, ListsOfTextsAreAskedAllAtOnce) {
  for (const char* text :
       {"args == cat", "args == /etc/passwd", "args contains pass", "args startswith -",
        "args glob /etc/*", "args intersects (dog, cat)", "args intersects (cats)", "args != dog",
        "args in (cat, -n, /etc/passwd, x)", "not args in (cat, -n)", "args exists"}) {
    EXPECT_TRUE(holds(text)) << text;
  }
  for (const char* text : {"args == ca", "args != cat", "args intersects (dog)"}) {
    EXPECT_FALSE(holds(text)) << text;
  }
  const FieldValues none({{"args", Texts{}}});
  EXPECT_TRUE(compiled("args exists").evaluate(none));
  EXPECT_FALSE(compiled("args in (a)").evaluate(none));
}

TEST(Condition, MacrosStandForTheirConditions) {
  EXPECT_TRUE(holds("is_cat"));
  EXPECT_TRUE(holds("is_root_cat"));
  EXPECT_TRUE(holds("not not is_cat and pid = 12"));
  EXPECT_FALSE(holds("not is_cat"));
  // In parentheses, whatever is in them.
  EXPECT_FALSE(holds("either and pid == 2"));
  EXPECT_TRUE(holds("either and pid == 12"));
}

TEST(Condition, AnEmptyOneHolds) {
  EXPECT_TRUE(holds(""));
  EXPECT_TRUE(holds(" \n\t "));
  EXPECT_TRUE(Condition().evaluate(values()));
  EXPECT_FALSE(Condition().remembers());
  EXPECT_TRUE(Condition().terms().empty());
  EXPECT_TRUE(Condition().fields().empty());
}

TEST(Condition, TextsMayHoldAnyBytes) {
  const FieldValues hostile({{"comm", std::string("a\0b\x1b[2J\xff", 8)}});
  EXPECT_TRUE(compiled("comm contains b").evaluate(hostile));
  EXPECT_TRUE(compiled("comm endswith '\xff'").evaluate(hostile));
  EXPECT_TRUE(compiled("comm glob 'a*\xff'").evaluate(hostile));
  EXPECT_FALSE(compiled("comm == a").evaluate(hostile));
}

// ---- errors ----

TEST(ConditionErrors, SayWhereAndWhat) {
  const std::pair<const char*, const char*> all[] = {
      {"pid == 12 and", "condition: a name was expected, at character 14 (\"\")"},
      {"pid == 12 pid", "condition: what follows makes no sense, at character 11 (\"pid\")"},
      {"(pid == 12", "condition: a parenthesis is not closed, at character 11 (\"\")"},
      {"pid == 12)", "condition: what follows makes no sense, at character 10 (\")\")"},
      {"comm == 'cat", "condition: a quote is not closed, at character 9 (\"'cat\")"},
      {"comm ==", "condition: a value was expected, at character 8 (\"\")"},
      {"comm == and pid == 1",
       "condition: a value was expected; write \"and\" in quotes, at character 9 (\"and pid == "
       "1\")"},
      {"pid == twelve", "condition: 'twelve' is not a number, at character 1 (\"pid == twelve\")"},
      {"pid == 12 and pid ~ 3",
       "condition: 'pid' is not true or false: compare it with something, "
       "at character 15 (\"pid ~ 3\")"},
      {"comm pmatch (a)",
       "condition: no operator is called 'pmatch', at character 6 (\"pmatch "
       "(a)\")"},
      {"comm in (a, b", "condition: a parenthesis is not closed, at character 14 (\"\")"},
      {"comm in (a, )", "condition: a value was expected, at character 13 (\")\")"},
      {"comm in nosuch", "condition: no list is called 'nosuch', at character 9 (\"nosuch\")"},
      {"comm in",
       "condition: a list was expected: (A, B) or the name of one, at character 8 "
       "(\"\")"},
      {"and == 3",
       "condition: a name was expected, and 'and' is none, at character 1 (\"and == "
       "3\")"},
      {"traced == maybe",
       "condition: 'traced' is true or false, never 'maybe', at character 1 "
       "(\"traced == maybe\")"},
  };
  for (const auto& [text, message] : all) EXPECT_EQ(why(text), message) << text;
}

TEST(ConditionErrors, TypesMustFit) {
  EXPECT_EQ(why("pid == 1 and comm < 3"),
            "condition: 'comm' is a text, of which '<' cannot be asked: what can is == != in "
            "contains startswith endswith glob exists, at character 14 (\"comm < 3\")");
  EXPECT_THAT(why("pid startswith x"), HasSubstr("'pid' is a number, of which 'startswith'"));
  EXPECT_THAT(why("address contains 5"), HasSubstr("'address' is a number, of which 'contains'"));
  EXPECT_THAT(why("traced > 1"), HasSubstr("'traced' is true or false, of which '>'"));
  EXPECT_THAT(why("traced in (true)"), HasSubstr("of which 'in'"));
  EXPECT_THAT(why("comm intersects (a)"), HasSubstr("of which 'intersects'"));
  EXPECT_THAT(why("args < 1"), HasSubstr("'args' is a list of texts, of which '<'"));
  EXPECT_THAT(why("comm"), HasSubstr("'comm' is not true or false"));
  EXPECT_THAT(why("pid in (1, x)"), HasSubstr("'x' is not a number"));
  EXPECT_THAT(why("pid in (shells)"), HasSubstr("'sh' is not a number"));
}

TEST(ConditionErrors, UnknownNamesComeWithTheNearest) {
  const Error field = refused("proc.nam == x");
  EXPECT_THAT(field.message, HasSubstr("no field is called 'proc.nam', at character 1"));
  EXPECT_TRUE(field.hint.starts_with("fields of this rule are proc.name, ")) << field.hint;
  const Error macro = refused("pid == 12 and is_kat");
  EXPECT_EQ(macro.message,
            "condition: neither a macro nor a field is called 'is_kat', at character 15 "
            "(\"is_kat\")");
  EXPECT_TRUE(macro.hint.starts_with("there are is_cat, ")) << macro.hint;
  EXPECT_THAT(refused("comm in (a) and comm in nosuch").hint, HasSubstr("- list: NAME"));
}

TEST(ConditionErrors, OfMacrosSayInWhich) {
  EXPECT_EQ(why("pid == 1 or wrong"),
            "condition: macro \"wrong\" (m.yaml:6): no operator is called 'is', at character 6 "
            "(\"is 3\")");
  EXPECT_EQ(why("a"), "condition: macro 'a' uses itself: a > b > a, at character 5 (\"a\")");
  EXPECT_THAT(why("counts"), HasSubstr("macro \"counts\" (m.yaml:7): count() stands alone"));
}

TEST(ConditionErrors, ShowHostileTextEscaped) {
  EXPECT_THAT(why("comm == 'x' \x1b[2J\n"), HasSubstr("(\"\\x1b[2J\\x0a\")"));
  EXPECT_THAT(why("\xff\xfe == 1"), HasSubstr("a name was expected, at character 1 (\"\\xff"));
  EXPECT_THAT(why(std::string_view("pid\0 == 1", 9)), HasSubstr("(\"pid\\x00 == 1\")"));
}

TEST(ConditionBounds, OfTextNestingPartsAndLists) {
  EXPECT_THAT(why(std::string(1 << 20, 'a')), HasSubstr("it has more than 65536 bytes"));
  EXPECT_THAT(why(std::string(1 << 20, '(')), HasSubstr("it has more than 65536 bytes"));
  EXPECT_THAT(why(std::string(60000, '(')), HasSubstr("it is nested too deep"));
  EXPECT_THAT(why(std::string(60000, '!')), HasSubstr("it is nested too deep"));
  std::string nots, flat = "pid == 1";
  for (int i = 0; i < 20000; ++i) nots += "not ";
  EXPECT_THAT(why(nots.substr(0, 60000) + "traced"), HasSubstr("it is nested too deep"));
  EXPECT_TRUE(holds(std::string(32, '(') + "pid == 12" + std::string(32, ')')));
  EXPECT_THAT(why(std::string(33, '(') + "pid == 12" + std::string(33, ')')),
              HasSubstr("nested too deep"));
  for (int i = 0; i < 4200; ++i) flat += " or pid=1";
  EXPECT_THAT(why(flat), HasSubstr("it has more than 4096 parts"));
  EXPECT_TRUE(holds(flat.substr(0, 36000) + " or traced"));
}

TEST(ConditionBounds, OfMacrosThatDoubleEachOther) {
  Macros doubling = {{"m0", {"pid == 1", {"m.yaml", 1}}}};
  for (int i = 1; i < 30; ++i) {
    const std::string before = "m" + std::to_string(i - 1);
    doubling["m" + std::to_string(i)] = {before + " or " + before, {"m.yaml", 1}};
  }
  const auto made = Condition::compile("m29", {&names(), nullptr, &doubling});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("with its macros it has more than 4096 parts"));
  Macros chain;
  for (int i = 0; i < 100; ++i) {
    chain["m" + std::to_string(i)] = {"m" + std::to_string(i + 1), {"m.yaml", 1}};
  }
  const auto deep = Condition::compile("m0", {&names(), nullptr, &chain});
  ASSERT_FALSE(deep);
  EXPECT_THAT(deep.error().message, HasSubstr("nested too deep"));
}

TEST(ConditionBounds, OfListsAndPatterns) {
  const Lists big = {{"big", Texts(40000, "x")}};
  EXPECT_TRUE(Condition::compile("comm in (big)", {&names(), &big, nullptr}));
  const auto two = Condition::compile("comm in (big, big)", {&names(), &big, nullptr});
  ASSERT_FALSE(two);
  EXPECT_THAT(two.error().message, HasSubstr("its lists have more than 65536 values"));
  EXPECT_THAT(why("comm glob " + std::string(257, 'a')), HasSubstr("at most 256 bytes"));
}

// ---- what can be known beforehand ----

std::vector<std::string> terms(std::string_view text) {
  std::vector<std::string> all;
  for (const ConditionTerm& term : compiled(text).terms()) all.push_back(term.text);
  return all;
}

TEST(ConditionTerms, AreWhatMustHold) {
  EXPECT_THAT(terms("pid == 12 and comm = cat and uid > 5"),
              ElementsAre("pid == 12", "comm == \"cat\"", "uid > 5"));
  EXPECT_THAT(terms("(pid == 0x10 and (comm != 'a \"b\"')) and is_root_cat and traced"),
              ElementsAre("pid == 16", "comm != 'a \"b\"'"));
  EXPECT_THAT(terms("pid < 5 and not uid == 3 and (uid == 1 or uid == 2)"), ElementsAre("pid < 5"));
  EXPECT_THAT(terms("uid == -1 and pid != 0xffffffff and rax < 0 and rax == 0xffffffff"),
              ElementsAre("uid == 4294967295", "pid != -1", "rax < 0", "rax == 4294967295"));
  EXPECT_THAT(terms("pid == 1 or comm == cat"), ElementsAre());
  EXPECT_THAT(terms("comm startswith c and comm in (a) and arg[0] == x and args == y"),
              ElementsAre());
}

TEST(ConditionTerms, LeaveOutWhatFiltersCannotSay) {
  const Macros both = {{"m", {"comm == 'a\"b'", {"m.yaml", 1}}}};
  EXPECT_THAT(terms("comm == \"it's\" and pid == 1"), ElementsAre("comm == \"it's\"", "pid == 1"));
  EXPECT_THAT(terms("comm == " + std::string(2000, 'x')), ElementsAre());
}

TEST(ConditionTerms, EndAtTheFirstCount) {
  EXPECT_THAT(terms("pid == 1 and count(uid, 1s) > 3 and comm == cat"), ElementsAre("pid == 1"));
  EXPECT_THAT(terms("count(uid, 1s) > 3 and comm == cat"), ElementsAre());
  EXPECT_THAT(terms("pid == 1 and (uid == 2 and comm == cat) and count(uid, 1s) > 3"),
              ElementsAre("pid == 1", "uid == 2", "comm == \"cat\""));
}

TEST(ConditionTerms, AreUnderstoodByFilters) {
  const auto known = [](std::string_view name) -> std::optional<FilterName> {
    FilterTerm term{.field = FilterTerm::Field::fetch};
    if (name == "comm" || name == "fd.name") return FilterName{.term = term, .is_text = true};
    if (name == "uid") term.bits = 32;
    return FilterName{.term = term, .is_typed = name != "rax"};
  };
  for (const std::string& term :
       terms("pid == -5 and comm == 'a \"b\"' and uid == -1 and size > 7 and rax < 0 and rax == -3 "
             "and fd.name != /etc/passwd and address == 0xffff888000000000 and comm == ''")) {
    const auto filter = parse_filter(term, known);
    EXPECT_TRUE(filter) << term << ": " << filter.error().message;
  }
}

TEST(Condition, TellsWhichFieldsItNames) {
  EXPECT_THAT(compiled("pid == 12 and (comm = cat or not pid = 3) and is_root_cat and "
                       "count(size, address, 1s) > 1")
                  .fields(),
              ElementsAre("pid", "comm", "uid", "size", "address"));
}

// ---- without names ----

TEST(Condition, OfUnknownFieldsOnlyTheFormIsLookedAt) {
  const ConditionContext form{nullptr, &lists(), &macros()};
  for (const char* text : {"anything == 3 and whatever startswith x or flag", "is_cat",
                           "x in (shells) and count(y, 3s) > 2 and z < 4"}) {
    const auto made = Condition::compile(text, form);
    ASSERT_TRUE(made) << made.error().message;
    made->evaluate(values());
  }
  for (const char* text : {"anything ==", "a in nosuch", "wrong", "a", "counts", "x y"}) {
    EXPECT_FALSE(Condition::compile(text, form)) << text;
  }
}

}  // namespace
}  // namespace vmsight::detect_condition_test
