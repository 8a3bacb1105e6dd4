#include "kernel/cache.h"

#include <gtest/gtest.h>

#include <fmt/format.h>
#include <sys/stat.h>
#include <chrono>
#include <filesystem>
#include <fstream>

namespace vmsight::kernel_cache_test {
namespace {

namespace fs = std::filesystem;

KernelMemo example() {
  KernelMemo memo;
  memo.banner = "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP";
  memo.build_id = "0123456789abcdef0123456789abcdef01234567";
  memo.kallsyms = {.from_rodata = 12345,
                   .layout = {.count = 5,
                              .encoding = KallsymsLayout::Encoding::absolute_percpu,
                              .names = 1,
                              .names_size = 2,
                              .token_table = 3,
                              .token_index = 4,
                              .offsets = 5,
                              .relative_base = 6,
                              .seqs = 7,
                              .size = 8}};
  memo.symbols.set("init_task", SymbolValue{0x1234567, false, 'D'});
  memo.symbols.set("cpu_number", SymbolValue{0x1a000, true, 'A'});
  memo.symbols.set("udp_table", std::nullopt);
  memo.members.set("task_struct thread_info.cpu", Member{16, 4, 0, 0, 1});
  memo.members.set("virtio_net:virtnet_info sq", Member{24, 8, 3, 5, 7});
  memo.members.set("task_struct cpu", std::nullopt);
  memo.type_sizes.set("task_struct", 9792);
  memo.symbol_sizes.set("x86_bug_flags", 256);
  memo.enumerators.set("MODULE_STATE_LIVE", -3);
  memo.modules.set("virtio_net", KernelMemo::ModuleTypes{4711, 0xfeedULL});
  return memo;
}

template <typename Value>
void expect_same(const Remembered<Value>& a, const Remembered<Value>& b) {
  EXPECT_EQ(a.size(), b.size());
  for (const auto& [name, answer] : a) {
    const auto* other = b.find(name);
    ASSERT_NE(other, nullptr) << name;
    EXPECT_TRUE(*other == answer) << name;
  }
}

void expect_same(const KernelMemo& a, const KernelMemo& b) {
  EXPECT_EQ(a.banner, b.banner);
  EXPECT_EQ(a.build_id, b.build_id);
  EXPECT_EQ(a.kallsyms, b.kallsyms);
  expect_same(a.symbols, b.symbols);
  expect_same(a.members, b.members);
  expect_same(a.type_sizes, b.type_sizes);
  expect_same(a.symbol_sizes, b.symbol_sizes);
  expect_same(a.enumerators, b.enumerators);
  expect_same(a.modules, b.modules);
}

TEST(MemoTextTest, RoundTrip) {
  const auto parsed = parse_memo(format_memo(example()));
  ASSERT_TRUE(parsed) << parsed.error().message;
  expect_same(example(), *parsed);
}

TEST(MemoTextTest, NamesThatWouldBreakTheFormatAreNotKept) {
  KernelMemo memo = example();
  memo.symbols.set("a b", SymbolValue{1, false, 'T'});
  memo.symbols.set("a\nsymbol evil 1 r T", SymbolValue{1, false, 'T'});
  memo.symbols.set("", std::nullopt);
  memo.members.set("a b c", Member{});
  memo.members.set("a ", std::nullopt);
  memo.type_sizes.set("unsigned long", 8);
  const auto parsed = parse_memo(format_memo(memo));
  ASSERT_TRUE(parsed) << parsed.error().message;
  expect_same(example(), *parsed);
}

TEST(MemoTextTest, AnyChangedByteIsNoticed) {
  const std::string text = format_memo(example());
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    EXPECT_FALSE(parse_memo(damaged)) << "byte " << i;
  }
  for (std::size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(parse_memo(std::string_view(text).substr(0, size))) << size;
}

class CacheTest : public testing::Test {
 protected:
  CacheTest() {
    std::string pattern = fs::temp_directory_path() / "vmsight-cache-XXXXXX";
    root = ::mkdtemp(pattern.data());
    directory = root / "a" / "b";
  }
  ~CacheTest() override { fs::remove_all(root); }

  KernelCache cache() const { return KernelCache(directory); }
  fs::path only_file() const { return fs::directory_iterator(directory)->path(); }
  void expect_note(std::string_view words) const {
    const auto found = cache().find(example().banner);
    EXPECT_TRUE(found.memos.empty());
    EXPECT_NE(found.note.find(words), found.note.npos) << found.note;
  }

  fs::path root, directory;
};

TEST_F(CacheTest, GivesBackWhatWasSaved) {
  EXPECT_TRUE(cache().find(example().banner).memos.empty());
  ASSERT_TRUE(cache().save(example()));
  const auto found = cache().find(example().banner);
  EXPECT_EQ(found.note, "");
  ASSERT_EQ(found.memos.size(), 1U);
  expect_same(example(), found.memos[0]);
  EXPECT_TRUE(cache().find("Linux version 7").memos.empty());
}

TEST_F(CacheTest, IsPrivateAndLeavesNoTemporaryFiles) {
  ASSERT_TRUE(cache().save(example()));
  ASSERT_TRUE(cache().save(example()));
  EXPECT_EQ(fs::status(directory).permissions(), fs::perms::owner_all);
  EXPECT_EQ(fs::status(only_file()).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory), {}), 1);
}

TEST_F(CacheTest, BuildsWithTheSameBannerAreKeptApart) {
  KernelMemo other = example();
  other.build_id = "ffff";
  ASSERT_TRUE(cache().save(example()));
  ASSERT_TRUE(cache().save(other));
  EXPECT_EQ(cache().find(example().banner).memos.size(), 2U);
}

TEST_F(CacheTest, DamageIsNoticed) {
  ASSERT_TRUE(cache().save(example()));
  std::fstream(only_file(), std::ios::in | std::ios::out | std::ios::ate) << "more";
  expect_note("checksum");
  fs::resize_file(only_file(), 3);
  expect_note("version");
  fs::resize_file(only_file(), 64U << 20);
  expect_note("no cache file");
  ASSERT_TRUE(cache().save(example()));
  EXPECT_EQ(cache().find(example().banner).memos.size(), 1U);
}

TEST_F(CacheTest, AFileThatOthersMayWriteIsNotBelieved) {
  ASSERT_TRUE(cache().save(example()));
  fs::permissions(only_file(), fs::perms::others_write, fs::perm_options::add);
  expect_note("others may write");
}

TEST_F(CacheTest, ADirectoryThatOthersMayWriteIsNotUsed) {
  ASSERT_TRUE(cache().save(example()));
  fs::permissions(directory, fs::perms::group_write, fs::perm_options::add);
  expect_note("not used");
  EXPECT_FALSE(cache().save(example()));
}

TEST_F(CacheTest, ForeignFilesAreNotBelieved) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  ASSERT_TRUE(cache().save(example()));
  ASSERT_EQ(::chown(only_file().c_str(), 12345, 12345), 0);
  expect_note("belongs to user 12345");
}

TEST_F(CacheTest, LinksAreNotFollowed) {
  ASSERT_TRUE(cache().save(example()));
  const fs::path file = only_file(), elsewhere = root / "elsewhere";
  fs::rename(file, elsewhere);
  fs::create_symlink(elsewhere, file);
  expect_note("rebuilt");
}

TEST_F(CacheTest, WithoutBuildIdOrDirectoryNothingIsSaved) {
  KernelMemo memo = example();
  memo.build_id = "";
  ASSERT_TRUE(cache().save(memo));
  memo.build_id = "../../evil";
  ASSERT_TRUE(cache().save(memo));
  EXPECT_FALSE(fs::exists(directory));
  EXPECT_TRUE(KernelCache("").save(example()));
  EXPECT_TRUE(KernelCache("").find(example().banner).memos.empty());
}

TEST_F(CacheTest, AnUnusableDirectoryIsAnError) {
  fs::create_directories(directory.parent_path());
  std::ofstream(directory) << "a file";
  EXPECT_FALSE(cache().save(example()));
  expect_note("not used");
}

TEST_F(CacheTest, RemembersPlacesOfVms) {
  const KernelPlace place{.rodata = GuestPhys(0x3a00000), .ticks = 7, .at_ns = 8};
  EXPECT_EQ(cache().find_place("vm-1-2"), std::nullopt);
  ASSERT_TRUE(cache().save_place("vm-1-2", place));
  EXPECT_EQ(cache().find_place("vm-1-2"), place);
  EXPECT_EQ(cache().find_place("vm-1-3"), std::nullopt);
  EXPECT_FALSE(cache().save_place("../vm", place));
  EXPECT_FALSE(fs::exists(directory / "../vm.place"));
  fs::permissions(only_file(), fs::perms::others_write, fs::perm_options::add);
  EXPECT_EQ(cache().find_place("vm-1-2"), std::nullopt) << "others may write to it";
}

TEST_F(CacheTest, WhatWasNotUsedForLongestGoes) {
  KernelMemo memo = example();
  const auto long_ago = fs::file_time_type::clock::now() - std::chrono::hours(1000);
  for (std::size_t i = 0; i < CacheFiles::max_files; ++i) {
    memo.build_id = fmt::format("{:04x}", i);
    ASSERT_TRUE(cache().save(memo));
  }
  for (const auto& file : fs::directory_iterator(directory)) fs::last_write_time(file, long_ago);
  std::ofstream(directory / "strange") << "not ours";
  memo = example();
  ASSERT_TRUE(cache().save(memo));  // one too many: one of the old ones goes
  EXPECT_EQ(cache().find(memo.banner).memos.size(), CacheFiles::max_files);  // all are used now
  memo.banner = "Linux version 7.0.0";
  for (int i = 0; i < 3; ++i) {
    memo.build_id = fmt::format("f{:04x}", i);
    ASSERT_TRUE(cache().save(memo));
  }
  EXPECT_EQ(cache().find(memo.banner).memos.size(), 3U);
  const auto files = std::distance(fs::directory_iterator(directory), {});
  EXPECT_EQ(static_cast<std::size_t>(files), CacheFiles::max_files + 1);
  EXPECT_TRUE(fs::exists(directory / "strange")) << "a file that is not of the cache was removed";
}

TEST_F(CacheTest, TooManyPlacesGoAndKernelsStay) {
  ASSERT_TRUE(cache().save(example()));
  const KernelPlace place{.rodata = GuestPhys(0x3a00000), .ticks = 7, .at_ns = 8};
  for (std::size_t i = 0; i < CacheFiles::max_files + 3; ++i)
    ASSERT_TRUE(cache().save_place(fmt::format("vm-{}-2", i), place));
  const auto files = std::distance(fs::directory_iterator(directory), {});
  EXPECT_EQ(static_cast<std::size_t>(files), CacheFiles::max_files + 1);
  EXPECT_EQ(cache().find(example().banner).memos.size(), 1U);
}

}  // namespace
}  // namespace vmsight::kernel_cache_test
