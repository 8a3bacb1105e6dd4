// The files of `vmsight check`, by the front: which it opens for whoever asks, and that a baseline is taken once.
#include "cli/check_service.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace vmsight::cli_check_service_test {
namespace {

namespace fs = std::filesystem;

class CheckServiceTest : public testing::Test {
 protected:
  CheckServiceTest() {
    std::string pattern = fs::temp_directory_path() / "vmsight-check-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    cache_ = root_ / "cache";
    fs::create_directory(cache_);
  }
  ~CheckServiceTest() override { fs::remove_all(root_); }

  AskedBaselineFiles files(CheckService& service) {
    return AskedBaselineFiles(
        [&](std::string_view what, std::string_view text) { return service.serve(what, text); });
  }
  std::string in_cache(std::string_view name) const { return cache_ + "/" + std::string(name); }

  fs::path root_;
  std::string cache_;
};

TEST_F(CheckServiceTest, KeepsBaselinesOfTheCache) {
  CheckService service(cache_, "");
  auto asked = files(service);
  const std::string text = in_cache("0123abcd-0000000000000001.text");
  EXPECT_EQ(asked.read(text).error().code, ErrorCode::not_found);
  ASSERT_TRUE(asked.replace(text, std::string("a\0b", 3)));
  EXPECT_EQ(*asked.read(text), std::string("a\0b", 3));
  EXPECT_FALSE(asked.replace(text, "another")) << "what a kernel's text was is kept once";
  EXPECT_EQ(*asked.read(text), std::string("a\0b", 3));
  const std::string modules = in_cache("0123abcd-0000000000000001.modules");
  ASSERT_TRUE(asked.replace(modules, "one"));
  ASSERT_TRUE(asked.replace(modules, "two"));
  EXPECT_EQ(*asked.read(modules), "two");
  EXPECT_FALSE(asked.replace(in_cache("3-3.modules"), "x")) << "a guest has one kernel";
}

TEST_F(CheckServiceTest, OpensNothingElse) {
  CheckService service(cache_, "");
  auto asked = files(service);
  std::ofstream(root_ / "secret.text") << "secret";
  for (const std::string& path :
       {cache_ + "/../secret.text", (root_ / "secret.text").string(), std::string("/etc/passwd"),
        in_cache("x.text"), in_cache("a/b.text"), in_cache("ab.kernel"), in_cache(""),
        std::string("ab.text"), cache_ + "x/ab.text", std::string()}) {
    EXPECT_FALSE(asked.read(path)) << path;
    EXPECT_FALSE(asked.replace(path, "x")) << path;
  }
  EXPECT_EQ(service.serve("read", in_cache("ab.text") + '\0' + "x").error().code,
            ErrorCode::not_found);
  EXPECT_FALSE(service.serve("replace", in_cache("ab.text")));
  EXPECT_FALSE(service.serve("prune", ".text"));
  EXPECT_FALSE(service.serve("remove", in_cache("ab.text")));
  EXPECT_TRUE(fs::is_empty(cache_));
}

TEST_F(CheckServiceTest, AFileThatIsNamedIsTheOnlyOne) {
  for (const char* name : {"mine", "mine.modules"}) {
    const std::string file = root_ / name;
    CheckService service(cache_, file);
    auto asked = files(service);
    ASSERT_TRUE(asked.replace(file, "trusted"));
    EXPECT_FALSE(asked.replace(file, "forged")) << name;
    ASSERT_TRUE(asked.replace(file + ".modules", "of this boot"));
    EXPECT_FALSE(asked.replace(in_cache("ab.text"), "x"));
    fs::remove(file);
    fs::remove(file + ".modules");
  }
}

TEST_F(CheckServiceTest, TellsTraps) {
  CheckService service(cache_, "");
  VmInfo vm;
  vm.pid = ::getpid();
  const AskService ask = [&](std::string_view what, std::string_view text) {
    return service.serve(what, text);
  };
  EXPECT_TRUE(asked_traps(ask, vm).empty());
  for (const char* text : {"", "1", "x 1", "1 x", "1 2 3"})
    EXPECT_FALSE(service.serve("traps", text));
}

TEST(OwnTraps, ComeAsTheyWere) {
  const std::vector<OwnTrap> traps{
      {GuestVirt(0xffffffff81000000), std::string("\x0f\x0b\0", 3), "", true},
      {GuestVirt(0xffffffff81000010), "", std::string("\xff", 1), false}};
  const auto got = unpack_traps(pack_traps(traps));
  ASSERT_TRUE(got);
  ASSERT_EQ(got->size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ((*got)[i].address, traps[i].address);
    EXPECT_EQ((*got)[i].code, traps[i].code);
    EXPECT_EQ((*got)[i].before, traps[i].before);
    EXPECT_EQ((*got)[i].is_new, traps[i].is_new);
  }
  for (const char* text : {"x", "1 0 x00", "1 0 x0 x00", "1 0 xzz x00", "x 0 x00 x00", "1 0 00 00"})
    EXPECT_FALSE(unpack_traps(text)) << text;
}

}  // namespace
}  // namespace vmsight::cli_check_service_test
