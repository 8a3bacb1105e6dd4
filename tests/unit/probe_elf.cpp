#include <gtest/gtest.h>

#include <dlfcn.h>
#include <fstream>
#include <random>

#include "probe/elf_symbols.h"

namespace vmsight::probe_elf_test {
namespace {

const char* const library = "/lib/x86_64-linux-gnu/libc.so.6";

/// Bytes of a file, of which some pages may be missing.
class Bytes final : public FileBytes {
 public:
  explicit Bytes(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  bool read(std::uint64_t offset, std::span<std::byte> into) override {
    if (offset > bytes_.size() || into.size() > bytes_.size() - offset) return false;
    for (std::uint64_t page = offset >> 12;
         page <= (offset + into.size() - (into.empty() ? 0 : 1)) >> 12; ++page) {
      if (page >= missing_from_ && page < missing_to_) return false;
    }
    std::memcpy(into.data(), bytes_.data() + offset, into.size());
    return true;
  }
  void miss(std::uint64_t from, std::uint64_t to) { missing_from_ = from, missing_to_ = to; }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::uint64_t missing_from_ = 0, missing_to_ = 0;
};

std::vector<std::byte> contents(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

/// Where the loader has put a function, as an offset in its file.
std::uint64_t file_offset_of(const void* function) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long start = 0, end = 0, offset = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %lx", &start, &end, &offset) != 3) continue;
    const auto at = reinterpret_cast<unsigned long>(function);
    if (at >= start && at < end) return at - start + offset;
  }
  return 0;
}

TEST(ElfSymbols, AreWhereTheLoaderFindsThem) {
  const auto file = open_host_file(library).value();
  void* loaded = ::dlopen(library, RTLD_NOW | RTLD_NOLOAD);  // not what a sanitizer put before it
  ASSERT_NE(loaded, nullptr);
  for (const char* name : {"getenv", "malloc", "writev", "qsort"}) {
    const auto answer = find_elf_functions(*file, name, false).value();
    ASSERT_EQ(answer.functions.size(), 1u) << name;
    EXPECT_EQ(answer.functions[0].file_offset, file_offset_of(::dlsym(loaded, name))) << name;
    EXPECT_GT(answer.functions[0].size, 0u);
  }
  const auto none = find_elf_functions(*file, "no_such_function", false).value();
  EXPECT_TRUE(none.functions.empty());
  EXPECT_TRUE(none.whole);
  EXPECT_GT(find_elf_functions(*file, "str*", true).value().functions.size(), 10u);
}

TEST(ElfSymbols, TheHashTableIsEnough) {
  Bytes file(contents(library));
  // Section headers are at the end, where nothing in a guest has ever read.
  file.miss(file.size() >> 12, ~0ULL);
  const auto answer = find_elf_functions(file, "getenv", false).value();
  ASSERT_EQ(answer.functions.size(), 1u);
  const auto unknown = find_elf_functions(file, "no_such_function", false).value();
  EXPECT_TRUE(unknown.functions.empty());
  file.miss(0, ~0ULL);
  const auto nothing = find_elf_functions(file, "getenv", false).value();
  EXPECT_TRUE(nothing.functions.empty());
  EXPECT_FALSE(nothing.whole);
}

TEST(ElfSymbols, OtherFilesAreNone) {
  Bytes text(std::vector<std::byte>(5000, std::byte{'x'}));
  EXPECT_EQ(find_elf_functions(text, "main", false).error().code, ErrorCode::bad_data);
  EXPECT_FALSE(open_host_file("/nonexistent"));
  EXPECT_FALSE(open_host_file("/tmp"));
}

TEST(ElfSymbols, ForgedFilesEndSomewhere) {
  const std::vector<std::byte> whole = contents(library);
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    Bytes file(whole);
    // Headers, the dynamic section and the tables are in the first pages and in the last.
    for (int i = 0; i < 40; ++i) {
      const std::size_t at = random() % 2 == 0 ? random() % 4096 : random() % file.bytes().size();
      file.bytes()[at] = static_cast<std::byte>(random());
    }
    if (auto answer = find_elf_functions(file, "getenv", false)) {
      EXPECT_LE(answer->functions.size(), 16u);
    }
  }
}

}  // namespace
}  // namespace vmsight::probe_elf_test
