#include "detect/output_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmsight::detect_output_template_test {
namespace {

using namespace detect;
using Kind = FieldType::Kind;
using testing::ElementsAre;
using testing::HasSubstr;

const FieldTable& names() {
  static const FieldTable table({{"comm", {Kind::text}},
                                 {"proc.name", {Kind::text}},
                                 {"pid", {Kind::signed_number}},
                                 {"address", {Kind::address}},
                                 {"args[0]", {Kind::text}},
                                 {"odd-name", {Kind::text}}});
  return table;
}

FieldValues values() {
  return FieldValues({{"comm", std::string("c\x1b[2J\nat\xff")},
                      {"proc.name", std::string("nginx")},
                      {"pid", std::int64_t{-7}},
                      {"address", std::uint64_t{0xffff888000000000}},
                      {"args[0]", std::string("first")},
                      {"odd-name", std::string("odd")}});
}

std::string rendered(std::string_view text, const Fields& fields = values()) {
  auto made = OutputTemplate::compile(text, names());
  EXPECT_TRUE(made) << text << ": " << made.error().message;
  return made ? made->render(fields) : "";
}

Error refused(std::string_view text) {
  const auto made = OutputTemplate::compile(text, names());
  EXPECT_FALSE(made) << text;
  return made ? Error() : made.error();
}

TEST(OutputTemplate, PutsValuesInTheirPlaces) {
  EXPECT_EQ(rendered("%proc.name pid=%pid at %address"), "nginx pid=-7 at 0xffff888000000000");
  EXPECT_EQ(rendered("%{proc.name}s, %{pid}%%, 100%% %%pid"), "nginxs, -7%, 100% %pid");
  EXPECT_EQ(rendered("it was %proc.name."), "it was nginx.");
  EXPECT_EQ(rendered("(%pid)%proc.name...%pid"), "(-7)nginx...-7");
  EXPECT_EQ(rendered("%args[0] %{args[0]} %{odd-name}"), "first first odd");
  EXPECT_EQ(rendered("nothing"), "nothing");
  EXPECT_EQ(rendered(""), "");
}

TEST(OutputTemplate, EscapesWhatTheGuestSays) {
  EXPECT_EQ(rendered("<%comm>"), "<c\\x1b[2J\\x0aat\\xff>");
  // A value is not looked at for percent signs.
  EXPECT_EQ(rendered("%comm", FieldValues({{"comm", std::string("%pid %% %{")}})), "%pid %% %{");
}

TEST(OutputTemplate, OfWhatIsAbsentSaysSo) {
  EXPECT_EQ(rendered("%comm=%pid=%address", FieldValues({})), "<NA>=<NA>=<NA>");
}

TEST(OutputTemplate, IsOneLine) {
  EXPECT_EQ(rendered("a\n b\tc %pid\n\n"), "a  b c -7");
  EXPECT_EQ(rendered("gr\xc3\xbc\xc3\x9f %pid \x1b[2J\x7f"), "gr\xc3\xbc\xc3\x9f -7 \\x1b[2J\\x7f");
  EXPECT_EQ(rendered("\xc2\x9b \xff"), "\\xc2\\x9b \\xff");  // a control byte of C1
}

TEST(OutputTemplate, LongValuesAreCut) {
  const std::string line = rendered("%comm", FieldValues({{"comm", std::string(100'000, 'x')}}));
  EXPECT_EQ(line, std::string(4096, 'x') + "...");
}

TEST(OutputTemplate, TellsItsFields) {
  const auto made = OutputTemplate::compile("%pid %comm %pid %{comm}", names());
  ASSERT_TRUE(made);
  std::vector<std::string> all;
  for (const auto& named : made->fields()) all.push_back(named.name);
  EXPECT_THAT(all, ElementsAre("pid", "comm"));
}

TEST(OutputTemplate, ErrorsSayWhere) {
  const Error unknown = refused("a %proc.nam was");
  EXPECT_EQ(unknown.message,
            "output: no field is called 'proc.nam', at character 3 (\"%proc.nam was\")");
  EXPECT_TRUE(unknown.hint.starts_with("fields of this rule are proc.name, ")) << unknown.hint;
  EXPECT_EQ(
      refused("50% of").message,
      "output: a field was expected; a percent sign is written %%, at character 3 (\"% of\")");
  EXPECT_THAT(refused("end %").message, HasSubstr("at character 5 (\"%\")"));
  EXPECT_THAT(refused("%{comm").message, HasSubstr("a field was expected"));
  EXPECT_THAT(refused("%{}").message, HasSubstr("a field was expected"));
  EXPECT_THAT(refused("%.").message, HasSubstr("a field was expected"));
  EXPECT_THAT(refused("%comm.exe").message, HasSubstr("no field is called 'comm.exe'"));
  EXPECT_THAT(refused("%{\x1b[2J}").message, HasSubstr("no field is called '\\x1b[2J'"));
}

TEST(OutputTemplate, IsBounded) {
  EXPECT_THAT(refused(std::string(1 << 20, 'x')).message,
              HasSubstr("it has more than 16384 bytes"));
  std::string fields;
  for (int i = 0; i < 257; ++i) fields += "%pid ";
  EXPECT_THAT(refused(fields).message, HasSubstr("it has more than 256 fields"));
}

}  // namespace
}  // namespace vmsight::detect_output_template_test
