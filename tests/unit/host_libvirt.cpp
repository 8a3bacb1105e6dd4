#include "host/libvirt.h"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/os.h"

namespace vmsight::host_libvirt_test {
namespace {

namespace fs = std::filesystem;

TEST(ParseLibvirtStatus, ReadsThePid) {
  constexpr std::string_view xml =
      "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n"
      "<domstatus state='running' reason='booted' pid='4711'>\n  <monitor path='/x' type='unix'/>";
  EXPECT_EQ(parse_libvirt_status(xml), 4711u);
  for (const char* text : {"", "<domstatus", "<domstatus pid='x'>", "<domstatus a='1'> pid='2'",
                           "<domstatus pid='12"}) {
    const auto pid = parse_libvirt_status(text);
    EXPECT_TRUE(!pid || *pid == 12) << text;
  }
}

TEST(Libvirt, FindsSessionDomains) {
  std::string runtime = testing::TempDir() + "vmsight-libvirt-XXXXXX";
  ASSERT_NE(::mkdtemp(runtime.data()), nullptr);
  const ScopeExit remove([&] { fs::remove_all(runtime); });
  ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  const fs::path directory = fs::path(runtime) / "libvirt/qemu/run";
  fs::create_directories(directory);
  std::ofstream(directory / "one.pid") << "4711\n";
  std::ofstream(directory / "two.xml") << "<domstatus state='running' pid='4712'>";
  EXPECT_EQ(libvirt_pid_of("one"), 4711u);
  EXPECT_EQ(libvirt_pid_of("two"), 4712u);
  EXPECT_EQ(libvirt_pid_of("three"), std::nullopt);
  EXPECT_EQ(libvirt_pid_of("../run/one"), std::nullopt);
  EXPECT_EQ(libvirt_domain_of(4711), "one");
  EXPECT_EQ(libvirt_domain_of(1), std::nullopt);
}

TEST(Libvirt, AUsersFileNamesItsOwnProcessesOnly) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  std::string runtime = testing::TempDir() + "vmsight-libvirt-XXXXXX";
  ASSERT_NE(::mkdtemp(runtime.data()), nullptr);
  const ScopeExit remove([&] { fs::remove_all(runtime); });
  ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  const fs::path directory = fs::path(runtime) / "libvirt/qemu/run";
  fs::create_directories(directory);
  const fs::path file = directory / "web.pid";
  std::ofstream(file) << ::getpid() << "\n";
  EXPECT_EQ(libvirt_pid_of("web"), static_cast<std::uint64_t>(::getpid()));
  EXPECT_FALSE(is_system_domain(::getpid()));
  ASSERT_EQ(::chown(file.c_str(), 12345, 12345), 0);
  EXPECT_EQ(libvirt_pid_of("web"), std::nullopt);
  EXPECT_EQ(libvirt_domain_of(::getpid()), std::nullopt);
  fs::remove(file);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);  // nobody will ever write to it
  EXPECT_EQ(libvirt_pid_of("web"), std::nullopt);
}

}  // namespace
}  // namespace vmsight::host_libvirt_test
