#include "host/process_paths.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "host/process.h"

namespace vmsight::host_process_paths_test {
namespace {

namespace fs = std::filesystem;

/// A process whose root directory is its owner's to fill.
class JailedProcess {
 public:
  explicit JailedProcess(const std::string& root) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) std::abort();
    const UniqueFd read_end(ready[0]), write_end(ready[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      const bool in = ::chroot(root.c_str()) == 0 && ::chdir("/run") == 0;
      if (!in || ::write(write_end.get(), "+", 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char byte = 0;
    if (::read(read_end.get(), &byte, 1) != 1) std::abort();
  }
  ~JailedProcess() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

class ProcessPathsTest : public testing::Test {
 protected:
  ProcessPathsTest() {
    std::string pattern = testing::TempDir() + "vmsight-paths-XXXXXX";
    top = ::mkdtemp(pattern.data());
    root = top / "root";
    fs::create_directories(root / "run");
    fs::create_directories(fs::path(root.string() + top.string()));
  }
  ~ProcessPathsTest() override { fs::remove_all(top); }

  static ino_t inode_of(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
  }
  static ino_t opened(const std::string& path) {
    const auto file = open_process_path(path);
    struct stat status {};
    return file && ::fstat(file->get(), &status) == 0 ? status.st_ino : 0;
  }

  fs::path top, root;
};

TEST_F(ProcessPathsTest, OursAreLeftAsTheyAre) {
  EXPECT_EQ(path_of_process(::getpid(), "/run/qmp"), "/run/qmp");
  EXPECT_EQ(path_of_process(::getpid(), "qmp"), fs::current_path().string() + "/qmp");
  EXPECT_EQ(path_inside("/run/qmp"), "/run/qmp");
  EXPECT_EQ(path_inside("/proc/12/root/run/qmp"), "/run/qmp");
  EXPECT_EQ(path_inside("/proc/self/root/run/qmp"), "/proc/self/root/run/qmp");
}

TEST_F(ProcessPathsTest, LinksOfAnotherRootStayInIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may change a root directory";
  // The same absolute path on both sides: the secret is ours, the decoy lies in the other root.
  const fs::path secret = top / "secret", decoy = root.string() + secret.string();
  std::ofstream(secret) << "ours";
  std::ofstream(decoy) << "theirs";
  fs::create_symlink(secret, root / "run/absolute");
  fs::create_symlink("../../../../../../../../" + secret.string(), root / "run/upwards");
  fs::create_symlink(top / "nothing", root / "run/dangling");
  fs::create_symlink("/proc/1/root", root / "run/magic");
  const JailedProcess jailed(root);
  for (const char* name : {"absolute", "upwards"}) {
    for (const std::string& path : {std::string(name), std::string("/run/") + name}) {
      const std::string outside = path_of_process(jailed.pid(), path);
      EXPECT_EQ(outside, fmt::format("/proc/{}/root/run/{}", jailed.pid(), name));
      EXPECT_EQ(opened(outside), inode_of(decoy)) << path;
      EXPECT_NE(opened(outside), inode_of(secret)) << path;
    }
  }
  EXPECT_EQ(opened(fmt::format("/proc/{}/root/run/dangling", jailed.pid())), 0U);
  EXPECT_EQ(opened(fmt::format("/proc/{}/root/run/magic", jailed.pid())), 0U);
}

TEST_F(ProcessPathsTest, WhatWasOpenedBeforeAChrootIsWhereItWas) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may change a root directory";
  std::ofstream(top / "qmp") << "opened before";
  const JailedProcess jailed(root);
  EXPECT_EQ(path_of_process(jailed.pid(), (top / "qmp").string()), (top / "qmp").string());
}

}  // namespace
}  // namespace vmsight::host_process_paths_test
