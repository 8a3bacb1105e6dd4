// Mounts of a namespace: as a list, as a tree, and what their options are called.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "state/mounts.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_mounts_test {
namespace {

using test::MadeUpKernel;
using test::SyntheticGuest;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class MountsTest : public ::testing::Test {
 protected:
  MountsTest() {
    kernel_.set("dentry", "d_name", {256, 16, 0, 0, 1});
    kernel_.set("mount", "mnt", {512, 64, 0, 0, 1});
    super_ = guest_.allocate(512);
    const GuestVirt type = guest_.allocate(256);
    kernel_.put(super_, "super_block", "s_type", type.raw());
    kernel_.put(super_, "super_block", "s_dev", std::uint32_t{0x2a});
    kernel_.put(type, "file_system_type", "name", guest_.place_string("tmpfs").raw());
    root_ = mount("none", {}, {}, 0, 1);
    proc_ = mount("proc", root_, dentry("proc", root_dentry(root_)), 0x2f, 2);
    data_ = mount("data", root_, dentry("data", root_dentry(root_)), 0x40 | 0x20, 3);
  }

  GuestVirt dentry(const std::string& name, GuestVirt parent) {
    const GuestVirt at = guest_.allocate(512);
    kernel_.put(at, "dentry", "d_parent", parent.raw() == 0 ? at.raw() : parent.raw());
    kernel_.put(at, "dentry", "d_hash.pprev", at.raw());
    kernel_.put(at + 256, "qstr", "name", guest_.place_string(name).raw());
    kernel_.put(at + 256, "qstr", "len", static_cast<std::uint32_t>(name.size()));
    return at;
  }
  GuestVirt mount(const std::string& source, GuestVirt parent, GuestVirt on, std::uint32_t flags,
                  std::uint32_t id) {
    const GuestVirt at = guest_.allocate(1024), mnt = at + 512;
    kernel_.put(at, "mount", "mnt_parent", parent.raw() == 0 ? at.raw() : parent.raw());
    kernel_.put(at, "mount", "mnt_mountpoint", on.raw());
    kernel_.put(at, "mount", "mnt_devname", guest_.place_string(source).raw());
    kernel_.put(at, "mount", "mnt_id", id);
    kernel_.put(mnt, "vfsmount", "mnt_root", dentry("/", {}).raw());
    kernel_.put(mnt, "vfsmount", "mnt_sb", super_.raw());
    kernel_.put(mnt, "vfsmount", "mnt_flags", flags);
    kernel_.put(mnt, "vfsmount", "mnt_idmap", kernel_.symbol("nop_mnt_idmap")->raw());
    return at;
  }
  GuestVirt root_dentry(GuestVirt mount) {
    Reader reader(guest_.memory(), space_);
    return reader.pointer(mount + 512 + kernel_.offset("vfsmount", "mnt_root"));
  }

  bool read() {
    auto paths = Paths::resolve(kernel_);
    auto mounts = MountsReader::resolve(kernel_);
    Reader reader(guest_.memory(), space_);
    StateOptions options;
    state_.clear();
    Context context{kernel_, reader, options, state_, {}, {}};
    paths->begin(reader, state_.arena, false);
    Shared shared;
    for (const GuestVirt ns : namespaces_) {
      shared.mount_namespaces.push_back({ns, ns.raw(), {root_ + 512, root_dentry(root_)}});
    }
    broken_ = mounts->read(context, *paths, shared);
    return broken_.empty() && reader.ok();
  }
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    for (const Mount& mount : state_.mounts) {
      lines.push_back(fmt::format("{} {} {} {} {} {}", mount.id, mount.parent, mount.source,
                                  mount.target, mount.fstype, mount.options));
    }
    return lines;
  }
  void expect_all() const {
    EXPECT_THAT(lines(),
                UnorderedElementsAre("1 1 none / tmpfs rw",
                                     "2 1 proc /proc tmpfs rw,nosuid,nodev,noexec,noatime,relatime",
                                     "3 1 data /data tmpfs ro,relatime"));
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  AddressSpace space_ = guest_.space();
  GuestVirt super_, root_, proc_, data_, ns_ = guest_.allocate(512);
  std::vector<GuestVirt> namespaces_{ns_};
  std::vector<MountsReader::Broken> broken_;
  State state_;
};

TEST_F(MountsTest, List) {
  kernel_.lack("mount.mnt_node");
  kernel_.lack("super_block.s_subtype");
  const std::uint32_t link = kernel_.offset("mount", "mnt_list");
  // A reader of /proc/mounts has its place marked in the list.
  const GuestVirt cursor = mount("cursor", root_, {}, 0x10000000, 9);
  const std::vector<GuestVirt> nodes{root_ + link, proc_ + link, cursor + link, data_ + link};
  guest_.link_list(ns_ + kernel_.offset("mnt_namespace", "list"), nodes);
  EXPECT_TRUE(read());
  expect_all();
}

TEST_F(MountsTest, Tree) {
  kernel_.lack("super_block.s_subtype");
  const std::uint32_t node = kernel_.offset("mount", "mnt_node");
  kernel_.put(ns_, "mnt_namespace", "mounts.rb_node", (proc_ + node).raw());
  kernel_.put(proc_ + node, "rb_node", "rb_left", (root_ + node).raw());
  kernel_.put(proc_ + node, "rb_node", "rb_right", (data_ + node).raw());
  EXPECT_TRUE(read());
  expect_all();
  EXPECT_EQ(state_.mounts[0].id, 1u);  // in order
  EXPECT_EQ(state_.mounts[0].device, 0x2au);
  EXPECT_EQ(state_.mounts[0].root, "/");
}

TEST_F(MountsTest, TreeThatGoesInCirclesFaults) {
  kernel_.lack("super_block.s_subtype");
  const std::uint32_t node = kernel_.offset("mount", "mnt_node");
  kernel_.put(ns_, "mnt_namespace", "mounts.rb_node", (proc_ + node).raw());
  kernel_.put(proc_ + node, "rb_node", "rb_left", (proc_ + node).raw());
  EXPECT_FALSE(read());
}

TEST_F(MountsTest, ABrokenNamespaceCostsTheOthersNothing) {
  kernel_.lack("super_block.s_subtype");
  const std::uint32_t node = kernel_.offset("mount", "mnt_node");
  const GuestVirt bad = guest_.allocate(512);
  kernel_.put(bad, "mnt_namespace", "mounts.rb_node", std::uint64_t{0xffff800000000008});
  kernel_.put(ns_, "mnt_namespace", "mounts.rb_node", (proc_ + node).raw());
  namespaces_ = {bad, ns_, bad};
  EXPECT_FALSE(read());
  EXPECT_THAT(lines(), ElementsAre("2 1 proc /proc tmpfs rw,nosuid,nodev,noexec,noatime,relatime"));
  ASSERT_EQ(broken_.size(), 2u);
  EXPECT_EQ(broken_[0].inode, bad.raw());
}

TEST_F(MountsTest, SubtypeAndUnreachableMounts) {
  kernel_.lack("mount.mnt_node");
  kernel_.put(super_, "super_block", "s_subtype", guest_.place_string("sshfs").raw());
  const GuestVirt elsewhere = mount("far", {}, {}, 0, 8);
  const std::uint32_t link = kernel_.offset("mount", "mnt_list");
  const std::vector<GuestVirt> nodes{root_ + link, elsewhere + link};
  guest_.link_list(ns_ + kernel_.offset("mnt_namespace", "list"), nodes);
  EXPECT_TRUE(read());
  EXPECT_THAT(lines(), ElementsAre("1 1 none / tmpfs.sshfs rw"));
}

}  // namespace
}  // namespace vmsight::state_mounts_test
