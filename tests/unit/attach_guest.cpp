// attach() to images that hold a planted kernel, and to what cannot be attached to.
#include "vmsight/guest.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "support/planted_image.h"

namespace vmsight::attach_guest_test {
namespace {

namespace fs = std::filesystem;

class AttachTest : public testing::Test {
 protected:
  static void expect_error(const Result<Guest>& guest, ErrorCode code, std::string_view words) {
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code, code) << guest.error().message;
    EXPECT_NE(guest.error().message.find(words), std::string::npos) << guest.error().message;
    EXPECT_FALSE(guest.error().hint.empty()) << guest.error().message;
  }

  const test::PlantedImage planted;
  const std::string image = planted.path();
  const std::string& banner = planted.spec().banner;
};

TEST_F(AttachTest, FindsTheKernelOfAnImageAndMayBeMoved) {
  auto attached = attach(image);
  ASSERT_TRUE(attached) << attached.error().message;
  const Guest guest = *std::move(attached);
  EXPECT_EQ(guest.name, image);
  EXPECT_FALSE(guest.vm);
  EXPECT_EQ(guest.ram().total_bytes(), planted.ram_size - (128U << 10))
      << "all but the video memory";
  EXPECT_EQ(guest.memory->technique(), "file");
  EXPECT_EQ(guest.kernel->banner(), banner);
  EXPECT_TRUE(guest.passed_over.empty());
}

TEST_F(AttachTest, MayBeAttachedAnew) {
  auto guest = attach(image);
  ASSERT_TRUE(guest);
  *guest = *attach(image);
  EXPECT_EQ(guest->kernel->banner(), banner);
  EXPECT_TRUE(guest->memory->health());
}

TEST_F(AttachTest, KeepsWhatItLearntOnlyWhereItIsTold) {
  ASSERT_TRUE(attach(image));
  const std::string cache = planted.directory() / "cache";
  ASSERT_TRUE(attach(image, {.cache_directory = cache}));
  EXPECT_FALSE(fs::is_empty(cache));
}

TEST_F(AttachTest, AnImageHasOneTechnique) {
  expect_error(attach(image, {.technique = "live-map"}), ErrorCode::unsupported, "is an image");
}

TEST_F(AttachTest, AKernelThatIsNotThereIsAnError) {
  expect_error(attach(image, {.kernel = "7"}), ErrorCode::not_found, "kernel");
  const std::string empty = planted.directory() / "empty.raw";
  std::ofstream(empty).close();
  fs::resize_file(empty, planted.ram_size);
  expect_error(attach(empty), ErrorCode::not_found, "no Linux kernel");
}

TEST_F(AttachTest, WhatIsNeitherVmNorImageIsNotFound) {
  expect_error(attach("no-such-vm"), ErrorCode::not_found, "no-such-vm");
  expect_error(attach((planted.directory() / "nothing").string()), ErrorCode::not_found, "nothing");
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
