// The front: what a sandboxed vmsight may still ask for, and that it is believed in nothing.
#include "attach/front.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

#include "vmsight/guest.h"

namespace vmsight::attach_front_test {
namespace {

namespace fs = std::filesystem;

class FrontTest : public testing::Test {
 protected:
  FrontTest() {
    std::string pattern = fs::temp_directory_path() / "vmsight-front-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    files_ = CacheDirectory(root_ / "cache");
  }
  ~FrontTest() override { fs::remove_all(root_); }

  FrontCache cache() {
    auto front = Front::start({.cache = &files_, .identity = "vm-1"});
    EXPECT_TRUE(front);
    return FrontCache(*front);
  }

  fs::path root_;
  CacheDirectory files_{""};
};

TEST_F(FrontTest, KeepsFilesAsTheDirectoryDoes) {
  FrontCache through = cache();
  const std::string large(300'000, 'x');
  EXPECT_TRUE(through.list("", ".kernel")->empty());
  ASSERT_TRUE(through.replace("aa-1.kernel", "text"));
  ASSERT_TRUE(through.replace("ab-2.kernel", large));
  ASSERT_TRUE(through.replace("vm-1.place", ""));
  EXPECT_EQ(*through.read("aa-1.kernel"), "text");
  EXPECT_EQ(*through.read("ab-2.kernel"), large);
  EXPECT_EQ(*through.read("vm-1.place"), "");
  EXPECT_EQ(*files_.read("ab-2.kernel"), large);
  EXPECT_EQ(through.list("", ".kernel")->size(), 2U);
  EXPECT_EQ(*through.list("ab", ".kernel"), std::vector<std::string>{"ab-2.kernel"});
  EXPECT_EQ(through.read("other.kernel").error().code, ErrorCode::os);
}

TEST_F(FrontTest, OpensNoOtherFile) {
  FrontCache through = cache();
  std::ofstream(root_ / "secret.kernel") << "secret";
  ASSERT_TRUE(through.replace("aa.kernel", "text"));
  for (const char* name :
       {"../secret.kernel", "/etc/passwd", "passwd", "a/b.kernel", "", ".kernel", "a.kernel.1",
        "A.kernel", "aa.kernel\n", "vm-2.place", "vm-1.place.kernel"}) {
    EXPECT_FALSE(through.read(name)) << name;
    EXPECT_FALSE(through.replace(name, "text")) << name;
  }
  EXPECT_FALSE(through.read(std::string(1000, 'a') + ".kernel"));
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ / "cache"), {}), 1);
}

TEST_F(FrontTest, LetsNobodyFillTheDisk) {
  FrontCache through = cache();
  std::size_t kept = 0;
  for (char build = 'a'; build <= 'z'; ++build)
    kept += through.replace(std::string(2, build) + ".kernel", "text").has_value();
  EXPECT_GT(kept, 2U);
  EXPECT_LT(kept, 20U);
  EXPECT_TRUE(through.replace("aa.kernel", "again"));
  EXPECT_EQ(static_cast<std::size_t>(std::distance(fs::directory_iterator(root_ / "cache"), {})),
            kept);
}

TEST_F(FrontTest, WithoutCacheOrVmThereIsNothing) {
  auto front = Front::start({});
  ASSERT_TRUE(front);
  EXPECT_EQ((*front)->ask(Front::Task::read, "aa.kernel").error().code, ErrorCode::unsupported);
  EXPECT_TRUE((*front)->cr3().empty());
  EXPECT_FALSE((*front)->ask(static_cast<Front::Task>(99), "x"));
}

/// An image tells its page tables itself: the front knows of a VM's only.
TEST_F(FrontTest, AnImageIsAskedFirst) {
  auto front = Front::start({});
  ASSERT_TRUE(front);
  Guest guest;
  guest.image.emplace();
  guest.image->registers.push_back({.cr3 = 0x1234000});
  guest.front = *front;
  EXPECT_EQ(guest.cr3(), std::vector<std::uint64_t>{0x1234000});
}

/// Whoever took over a sandboxed vmsight says anything.
TEST_F(FrontTest, EndsOnWhatIsNoRequest) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  std::thread front([&] { serve_as_front(ends[1], {.cache = &files_}); });
  const std::array<std::uint32_t, 3> too_much{0, 0xffffffff, 0xffffffff};
  EXPECT_EQ(::send(ends[0], too_much.data(), sizeof too_much, 0),
            static_cast<ssize_t>(sizeof too_much));
  front.join();
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace vmsight::attach_front_test
