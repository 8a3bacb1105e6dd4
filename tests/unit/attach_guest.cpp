// attach() to images that hold a planted kernel, and to what cannot be attached to.
#include "vmsight/guest.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "support/synthetic_kernel.h"

namespace vmsight::attach_guest_test {
namespace {

namespace fs = std::filesystem;
using test::ByteMemory;

constexpr std::uint64_t ram_size = 80U << 20;

class AttachTest : public testing::Test {
 protected:
  fs::path directory = fs::temp_directory_path() / ("vmsight-attach-" + std::to_string(::getpid()));
  AttachTest() { fs::create_directory(directory); }
  ~AttachTest() override { fs::remove_all(directory); }

  /// Raw RAM with a kernel in it.
  std::string image() {
    ByteMemory memory{{{GuestPhys(0), ram_size}}};
    test::plant_kernel(memory, spec);
    const std::string path = directory / "guest.raw";
    const auto bytes = memory.at(GuestPhys(0));
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(ram_size));
    return path;
  }
  static void expect_error(const Result<Guest>& guest, ErrorCode code, std::string_view words) {
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code, code) << guest.error().message;
    EXPECT_NE(guest.error().message.find(words), std::string::npos) << guest.error().message;
    EXPECT_FALSE(guest.error().hint.empty()) << guest.error().message;
  }

  test::KernelSpec spec;
};

TEST_F(AttachTest, FindsTheKernelOfAnImageAndMayBeMoved) {
  const std::string path = image();
  auto attached = attach(path);
  ASSERT_TRUE(attached) << attached.error().message;
  const Guest guest = *std::move(attached);
  EXPECT_EQ(guest.name, path);
  EXPECT_FALSE(guest.vm);
  EXPECT_EQ(guest.ram().total_bytes(), ram_size - (128U << 10)) << "all but the video memory";
  EXPECT_EQ(guest.memory->technique(), "file");
  EXPECT_EQ(guest.kernel->banner(), spec.banner);
  EXPECT_TRUE(guest.passed_over.empty());
}

TEST_F(AttachTest, MayBeAttachedAnew) {
  const std::string path = image();
  auto guest = attach(path);
  ASSERT_TRUE(guest);
  *guest = *attach(path);
  EXPECT_EQ(guest->kernel->banner(), spec.banner);
  EXPECT_TRUE(guest->memory->health());
}

TEST_F(AttachTest, KeepsWhatItLearntOnlyWhereItIsTold) {
  const std::string path = image();
  ASSERT_TRUE(attach(path));
  const std::string cache = directory / "cache";
  ASSERT_TRUE(attach(path, {.cache_directory = cache}));
  EXPECT_FALSE(fs::is_empty(cache));
}

TEST_F(AttachTest, AnImageHasOneTechnique) {
  expect_error(attach(image(), {.technique = "live-map"}), ErrorCode::unsupported, "is an image");
}

TEST_F(AttachTest, AKernelThatIsNotThereIsAnError) {
  expect_error(attach(image(), {.kernel = "7"}), ErrorCode::not_found, "kernel");
  const std::string empty = directory / "empty.raw";
  std::ofstream(empty).close();
  fs::resize_file(empty, ram_size);
  expect_error(attach(empty), ErrorCode::not_found, "no Linux kernel");
}

TEST_F(AttachTest, WhatIsNeitherVmNorImageIsNotFound) {
  expect_error(attach("no-such-vm"), ErrorCode::not_found, "no-such-vm");
  expect_error(attach((directory / "nothing").string()), ErrorCode::not_found, "nothing");
}

TEST(CacheDirectory, IsTheUsersOwn) {
  ::setenv("XDG_CACHE_HOME", "/somewhere", 1);
  EXPECT_EQ(default_cache_directory(), "/somewhere/vmsight");
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  ::setenv("HOME", "/home/somebody", 1);
  EXPECT_EQ(default_cache_directory(), "/home/somebody/.cache/vmsight");
  ::unsetenv("HOME");
  EXPECT_EQ(default_cache_directory(), "");
}

}  // namespace
}  // namespace vmsight::attach_guest_test
