#include "probe/patch/code_patch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "undo/recovery.h"

namespace vmsight::probe_code_patch_test {
namespace {

using nlohmann::json;

const CodePatch patch{.instruction = GuestVirt(0xffffffff81000ffe),
                      .address = GuestVirt(0xffffffff81001000),
                      .at = GuestPhys(0x1001000),
                      .host = HostVirt(0x7f0000001000),
                      .before = std::string("\x44\x00\x00", 3),
                      .after = std::string("\x3e\x0f\x08", 3)};

TEST(CodePatches, RecordsAreReadAsTheyWereWritten) {
  const Change change = record_of(std::vector{patch});
  EXPECT_EQ(change.kind, "probes");
  const auto read = parse_patches(json::parse(change.payload.dump()));
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), 1u);
  EXPECT_EQ(read->front().instruction, patch.instruction);
  EXPECT_EQ(read->front().address, patch.address);
  EXPECT_EQ(read->front().at, patch.at);
  EXPECT_EQ(read->front().host, patch.host);
  EXPECT_EQ(read->front().before, patch.before);
  EXPECT_EQ(read->front().after, patch.after);
}

TEST(CodePatches, NonsenseIsNoRecord) {
  for (
      const char* text :
      {"null", "[]", "{}", R"({"patches": 1})", R"({"patches": [1]})",
       R"({"patches": [[1, 2, 3, 4, "00"]]})", R"({"patches": [[1, 2, 3, -4, "00", "11"]]})",
       R"({"patches": [[1, 2, 3, 4, "00", "1"]]})", R"({"patches": [[1, 2, 3, 4, "00", "1122"]]})",
       R"({"patches": [[1, 2, 3, 4, "0g", "11"]]})", R"({"patches": [[1, 2, 3, 4, "", ""]]})",
       R"({"patches": [[1, 2, 3, 4, "0000000000000000000000000000000000", "0000000000000000000000000000000000"]]})"}) {
    EXPECT_FALSE(parse_patches(json::parse(text))) << text;
  }
}

TEST(CodePatches, NothingOfOursIsLeftAlone) {
  // Bytes that are not ours: no monitor is asked, nothing is written.
  std::string code = "\x90\x90\x90";
  CodePatch own = patch;
  own.host = HostVirt(reinterpret_cast<std::uint64_t>(code.data()));
  EXPECT_TRUE(probes_change.undo({.pid = ::getpid()}, record_of(std::vector{own}).payload));
  EXPECT_EQ(code, "\x90\x90\x90");
  // Ours are not put back without stopping the guest.
  code = own.after;
  EXPECT_FALSE(probes_change.undo({.pid = ::getpid()}, record_of(std::vector{own}).payload));
  EXPECT_EQ(code, own.after);
}

}  // namespace
}  // namespace vmsight::probe_code_patch_test
