// Paths as d_path() makes them, over a small tree of directories and mounts:
//
//   root mount  /  etc/passwd   mnt          gone (removed)
//   second mount on /mnt:  /  inner/file
//   a mount of another namespace, on nothing:  /  lost
#include <gtest/gtest.h>

#include "state/paths.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_paths_test {
namespace {

using test::MadeUpKernel;
using test::SyntheticGuest;

class PathsTest : public ::testing::Test {
 protected:
  PathsTest() : paths_(Paths::resolve(kernel_).value()) {
    root_ = mount(dentry("/", {}), {}, {});
    etc_ = dentry("etc", root_.dentry);
    passwd_ = dentry("passwd", etc_);
    mnt_ = dentry("mnt", root_.dentry);
    second_ = mount(dentry("/", {}), root_.mnt, mnt_);
    inner_ = dentry("inner", second_.dentry);
    paths_.begin(reader_, arena_, false);
    paths_.set_root(root_);
  }

  /// Without a parent, it is its own: the root of a file system.
  GuestVirt dentry(const std::string& name, GuestVirt parent) {
    const GuestVirt at = guest_.allocate(512);
    const bool is_root = parent.raw() == 0;
    kernel_.put(at, "dentry", "d_parent", (is_root ? at : parent).raw());
    kernel_.put(at, "dentry", "d_hash.pprev", at.raw());
    const GuestVirt text = guest_.place_string(name);
    const GuestVirt qstr = at + kernel_.offset("dentry", "d_name");
    kernel_.put(qstr, "qstr", "name", text.raw());
    kernel_.put(qstr, "qstr", "len", static_cast<std::uint32_t>(name.size()));
    return at;
  }

  PathRef mount(GuestVirt root, GuestVirt parent_vfsmount, GuestVirt mountpoint) {
    const GuestVirt at = guest_.allocate(1024);
    const std::uint32_t mnt = kernel_.offset("mount", "mnt");
    const GuestVirt parent = parent_vfsmount.raw() == 0 ? at : parent_vfsmount - mnt;
    kernel_.put(at, "mount", "mnt_parent", parent.raw());
    kernel_.put(at, "mount", "mnt_mountpoint", mountpoint.raw());
    kernel_.put(at + mnt, "vfsmount", "mnt_root", root.raw());
    return {at + mnt, root};
  }
  /// Gives the dentry a d_dname operation, and an inode.
  void name_by(GuestVirt dentry, const std::string& function, std::uint64_t inode_number) {
    const GuestVirt operations = guest_.allocate(256), inode = guest_.allocate(256);
    kernel_.put(operations, "dentry_operations", "d_dname", kernel_.symbol(function)->raw());
    kernel_.put(dentry, "dentry", "d_op", operations.raw());
    kernel_.put(dentry, "dentry", "d_inode", inode.raw());
    kernel_.put(inode, "inode", "i_ino", inode_number);
  }

  struct WideLayout {  // structures within structures need room
    explicit WideLayout(MadeUpKernel& kernel) {
      kernel.set("dentry", "d_name", {256, 16, 0, 0, 1});
      kernel.set("mount", "mnt", {512, 64, 0, 0, 1});
    }
  };
  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  WideLayout layout_{kernel_};
  Reader reader_{guest_.memory(), kernel_.space()};
  Arena arena_;
  Paths paths_;
  PathRef root_, second_;
  GuestVirt etc_, passwd_, mnt_, inner_;
};

TEST_F(PathsTest, FilesAndDirectories) {
  EXPECT_EQ(paths_.path(root_), "/");
  EXPECT_EQ(paths_.path({root_.mnt, etc_}), "/etc");
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}), "/etc/passwd");
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}), "/etc/passwd");  // remembered
}

TEST_F(PathsTest, AcrossMounts) {
  EXPECT_EQ(paths_.path(second_), "/mnt");
  EXPECT_EQ(paths_.path({second_.mnt, inner_}), "/mnt/inner");
  EXPECT_EQ(paths_.path({second_.mnt, dentry("file", inner_)}), "/mnt/inner/file");
  EXPECT_EQ(paths_.path({root_.mnt, mnt_}), "/mnt");  // below the mount
}

TEST_F(PathsTest, BindMountHasThePathOfItsMountPoint) {
  const PathRef bound = mount(etc_, root_.mnt, mnt_);
  EXPECT_EQ(paths_.path({bound.mnt, passwd_}), "/mnt/passwd");
}

TEST_F(PathsTest, RootOfAProcessOtherThanTheFileSystem) {
  paths_.set_root({root_.mnt, etc_});
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}), "/passwd");
  EXPECT_EQ(paths_.path({root_.mnt, mnt_}), "/mnt");  // outside of it: as far as it goes
}

TEST_F(PathsTest, OtherNamespaceEndsAtItsOwnRoot) {
  const PathRef other = mount(dentry("/", {}), {}, {});
  EXPECT_EQ(paths_.path({other.mnt, dentry("lost", other.dentry)}), "/lost");
  EXPECT_EQ(paths_.path(other), "/");
  EXPECT_FALSE(paths_.path_below(other, root_));
  EXPECT_EQ(paths_.path_below(second_, root_), "/mnt");
}

TEST_F(PathsTest, RemovedFilesAndDirectories) {
  const GuestVirt gone = dentry("gone", etc_), inside = dentry("inside", gone);
  kernel_.put(gone, "dentry", "d_hash.pprev", std::uint64_t{0});
  EXPECT_EQ(paths_.path({root_.mnt, gone}), "/etc/gone (deleted)");
  EXPECT_EQ(paths_.path({root_.mnt, inside}), "/etc/gone/inside");
  EXPECT_EQ(paths_.path_in_filesystem(gone), "/etc/gone//deleted");
}

TEST_F(PathsTest, NamesThatTheKernelMakes) {
  const GuestVirt pseudo = dentry("pseudo", {});
  const PathRef kernel_mount = mount(pseudo, {}, {});
  const auto file = [&](const std::string& name, const std::string& function) {
    const GuestVirt at = dentry(name, {});
    name_by(at, function, 42);
    return std::string(paths_.path({kernel_mount.mnt, at}));
  };
  EXPECT_EQ(file("", "pipefs_dname"), "pipe:[42]");
  EXPECT_EQ(file("", "sockfs_dname"), "socket:[42]");
  EXPECT_EQ(file("[eventfd]", "anon_inodefs_dname"), "anon_inode:[eventfd]");
  EXPECT_EQ(file("inotify", "anon_inodefs_dname"), "anon_inode:inotify");
  EXPECT_EQ(file("", "pidfs_dname"), "anon_inode:[pidfd]");
  EXPECT_EQ(file("memfd:x", "simple_dname"), "/memfd:x (deleted)");
  EXPECT_EQ(file("[aio]", "some_other_dname"), "/[aio] (deleted)");
}

TEST_F(PathsTest, NamespaceFiles) {
  const GuestVirt file = dentry("", {});
  name_by(file, "ns_dname", 4026531840);
  const GuestVirt ns = guest_.allocate(256), operations = guest_.allocate(256);
  const GuestVirt inode(guest_.memory().get<std::uint64_t>(
      *kernel_.space().translate(guest_.memory(), file + kernel_.offset("dentry", "d_inode"))));
  kernel_.put(inode, "inode", "i_private", ns.raw());
  kernel_.put(ns, "ns_common", "ops", operations.raw());
  kernel_.put(operations, "proc_ns_operations", "name", guest_.place_string("net").raw());
  const PathRef nsfs = mount(dentry("/", {}), {}, {});
  EXPECT_EQ(paths_.path({nsfs.mnt, file}), "net:[4026531840]");
  // `ip netns` mounts it: then it has a path.
  const PathRef bound = mount(file, root_.mnt, passwd_);
  EXPECT_EQ(paths_.path(bound), "/etc/passwd");
}

TEST_F(PathsTest, ForgetReadsAnew) {
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}), "/etc/passwd");
  const GuestVirt qstr = etc_ + kernel_.offset("dentry", "d_name");
  kernel_.put(qstr, "qstr", "name", guest_.place_string("ETC").raw());
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}), "/etc/passwd");
  paths_.forget();
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}), "/ETC/passwd");
}

TEST_F(PathsTest, CyclesAndLongNamesFault) {
  const GuestVirt a = dentry("a", etc_), b = dentry("b", a);
  kernel_.put(a, "dentry", "d_parent", b.raw());
  EXPECT_EQ(paths_.path({root_.mnt, b}).data(), nullptr);
  EXPECT_FALSE(reader_.ok());
  reader_.clear_fault();
  const GuestVirt qstr = passwd_ + kernel_.offset("dentry", "d_name");
  kernel_.put(qstr, "qstr", "len", std::uint32_t{1} << 30);
  EXPECT_EQ(paths_.path({root_.mnt, passwd_}).data(), nullptr);
  EXPECT_FALSE(reader_.ok());
}

TEST_F(PathsTest, MountCycleFaults) {
  const std::uint32_t mnt = kernel_.offset("mount", "mnt");
  const GuestVirt on_itself = dentry("/", {});
  const PathRef one = mount(on_itself, root_.mnt, {});
  const PathRef two = mount(on_itself, one.mnt, on_itself);
  kernel_.put(one.mnt - mnt, "mount", "mnt_parent", (two.mnt - mnt).raw());
  kernel_.put(one.mnt - mnt, "mount", "mnt_mountpoint", on_itself.raw());
  EXPECT_EQ(paths_.path(two).data(), nullptr);
  EXPECT_FALSE(reader_.ok());
}

}  // namespace
}  // namespace vmsight::state_paths_test
