#include <gtest/gtest.h>

#include "probe/kernel_sites.h"
#include "support/btf_builder.h"
#include "support/typed_kernel.h"

namespace vmsight::probe_site_test {
namespace {

using namespace test;

TEST(ProbeSiteText, UnderstandsWhatBpftraceWrites) {
  const Site plain = parse_site("kprobe:vfs_read").value();
  EXPECT_FALSE(plain.user || plain.at_return || plain.address);
  EXPECT_EQ(plain.symbol, "vfs_read");
  const Site offset = parse_site("kprobe:vfs_read+0x10").value();
  EXPECT_EQ(offset.offset, 16u);
  EXPECT_EQ(parse_site("kprobe:vfs_read+12").value().offset, 12u);
  const Site module = parse_site("kretprobe:ext4:ext4_sync_file").value();
  EXPECT_TRUE(module.at_return);
  EXPECT_EQ(module.module, "ext4");
  EXPECT_EQ(module.symbol, "ext4_sync_file");
  const Site user = parse_site("uprobe:/opt/a:b/lib.so:main+4").value();
  EXPECT_TRUE(user.user);
  EXPECT_EQ(user.path, "/opt/a:b/lib.so");
  EXPECT_EQ(user.symbol, "main");
  EXPECT_EQ(parse_site("kprobe:0xffffffff81000000").value().address, 0xffffffff81000000u);
  EXPECT_EQ(parse_site("uprobe:0x401000").value().address, 0x401000u);
  EXPECT_EQ(parse_site("uprobe:/bin/sh:0x1000").value().address, 0x1000u);
  EXPECT_TRUE(parse_site("kprobe:tcp_*").value().is_pattern());
}

TEST(ProbeSiteText, PrintsWhatItUnderstands) {
  for (const char* text :
       {"kprobe:vfs_read", "kprobe:vfs_read+0x10", "kretprobe:ext4:ext4_sync_file",
        "uprobe:/bin/bash:readline", "uretprobe:/a:b:c", "kprobe:0xffffffff81000000"}) {
    EXPECT_EQ(to_string(parse_site(text).value()), text);
  }
}

TEST(ProbeSiteText, RefusesTheRest) {
  for (const char* text : {"", "vfs_read", ":", "kprobe:", "kprobe::x", "kprobe:a:b:c", "probe:x",
                           "kprobe:+1", "kprobe:x+", "kprobe:x+y", "kprobe:0x", "kprobe:0xzz",
                           "uprobe:main", "uprobe:bin/sh:main", "uprobe:/bin/sh:", "uprobe:/bin/sh",
                           "kretprobe:x+4", "kprobe:x*+4", "kprobe:0x10000000000000000"}) {
    const auto site = parse_site(text);
    ASSERT_FALSE(site) << text;
    EXPECT_EQ(site.error().code, ErrorCode::usage) << text;
  }
}

class KernelSites : public ::testing::Test {
 protected:
  KernelSites() : kernel_(guest_.space(), nullptr) {
    kernel_.add_function("", "vfs_read", at(0));
    kernel_.add_function("", "vfs_write", at(0x100));
    kernel_.add_function("", "vfs_write_alias", at(0x100));
    kernel_.add_function("", "twice", at(0x200));
    kernel_.add_function("", "schedule.isra.0", at(0x300));
    kernel_.add_function("", "__pfx_twice", at(0x3f0));
    kernel_.add_function("", "twice", at(0x400));
    kernel_.add_function("ext4", "vfs_helper", at(0x500));
    kernel_.add_module_symbol("ext4", "vfs_data", at(0x600));
  }
  static GuestVirt at(std::uint64_t offset) { return GuestVirt(0xffffffff81000000 + offset); }
  Result<std::vector<ProbeSite>> find(const char* text) {
    return find_kernel_sites(kernel_, parse_site(text).value());
  }
  SyntheticGuest guest_;
  TypedKernel kernel_;
};

TEST_F(KernelSites, FindsFunctions) {
  const auto found = find("kprobe:vfs_write+0x20").value();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].address, at(0x120));
  EXPECT_EQ(found[0].size, 0x100u);
  EXPECT_EQ(to_string(found[0]), "vfs_write+0x20");
  EXPECT_EQ(find("kretprobe:ext4:vfs_helper").value()[0].module, "ext4");
}

TEST_F(KernelSites, PatternsStandForFunctionsOnly) {
  const auto found = find("kprobe:vfs_*").value();
  ASSERT_EQ(found.size(), 3u);  // an alias is no function of its own, data is none at all
  EXPECT_EQ(found[2].function, "vfs_helper");
  EXPECT_EQ(find("kprobe:*twice").value().size(), 2u);
}

TEST_F(KernelSites, ManyMatchesAreRefused) {
  std::vector<std::string> names(max_pattern_sites + 1);
  for (std::size_t i = 0; i < names.size(); ++i) {
    names[i] = "many_" + std::to_string(i);
    kernel_.add_function("", names[i], at(0x1000 + i * 16));
  }
  EXPECT_EQ(find("kprobe:many_*").error().code, ErrorCode::usage);
}

TEST_F(KernelSites, NamesTheNearest) {
  const Error unknown = find("kprobe:vfs_raed").error();
  EXPECT_EQ(unknown.code, ErrorCode::not_found);
  EXPECT_NE(unknown.hint.find("vfs_read"), std::string::npos) << unknown.hint;
  EXPECT_NE(find("kprobe:schedule").error().hint.find("schedule.isra.0"), std::string::npos);
  EXPECT_NE(find("kprobe:nothing:vfs_read").error().message.find("no module 'nothing'"),
            std::string::npos);
}

TEST_F(KernelSites, SaysWhatIsAmbiguous) {
  const Error twice = find("kprobe:twice").error();
  EXPECT_EQ(twice.code, ErrorCode::ambiguous);
  EXPECT_NE(twice.message.find("0xffffffff81000400"), std::string::npos) << twice.message;
}

TEST_F(KernelSites, AnOffsetStaysInTheFunction) {
  EXPECT_EQ(find("kprobe:vfs_read+0x100").error().code, ErrorCode::usage);
}

}  // namespace
}  // namespace vmsight::probe_site_test
