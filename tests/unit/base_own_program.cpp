// own_program(): where the environment says, else beside the program itself; an error that helps.
#include "base/own_program.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace vmsight::base_own_program_test {
namespace {

constexpr const char* variable = "VMSIGHT_TEST_OWN_PROGRAM";

class OwnProgram : public testing::Test {
 protected:
  void TearDown() override { ::unsetenv(variable); }
  const std::filesystem::path self_ = std::filesystem::read_symlink("/proc/self/exe");
};

TEST_F(OwnProgram, IsBesideTheProgram) {
  const auto found = own_program(self_.filename().string(), variable);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(*found, self_.string());
}

TEST_F(OwnProgram, IsWhereTheEnvironmentSays) {
  ::setenv(variable, "/bin/sh", 1);
  const auto found = own_program("no-such-program", variable);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(*found, "/bin/sh");
}

TEST_F(OwnProgram, IsNotSearchedInTheWorkingDirectory) {
  ::setenv(variable, "bin/sh", 1);
  const auto found = own_program(self_.filename().string(), variable);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(*found, self_.string());
}

TEST_F(OwnProgram, IsMissedWithItsNameAndPlace) {
  const auto found = own_program("no-such-program", variable);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::not_found);
  EXPECT_TRUE(found.error().message.starts_with("start no-such-program: /"));
  EXPECT_NE(found.error().hint.find(variable), std::string::npos);
}

TEST_F(OwnProgram, IsNotTakenFromElsewhereIfTheEnvironmentIsWrong) {
  ::setenv(variable, "/no/such/program", 1);
  const auto found = own_program(self_.filename().string(), variable);
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().message.find("/no/such/program is not there"), std::string::npos);
}

}  // namespace
}  // namespace vmsight::base_own_program_test
