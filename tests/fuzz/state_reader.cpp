// A whole state read from a small guest whose objects were forged: the input is a list of words
// to write over them. Nothing may crash, hang or grow without bound, whatever they are.
#include <span>

#include "state/state_reader.h"
#include "support/fuzz_input.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::test {
namespace {

/// Objects that hang together as a kernel's do, one process with files, areas and mounts.
class Scene {
 public:
  explicit Scene(bool old_kernel) {
    if (old_kernel) {
      for (const char* name : {"mm_struct.mm_mt", "mount.mnt_node"}) kernel_.lack(name);
    }
    kernel_.lack("worker");
    kernel_.set("task_struct", "comm", {2048, 16, 0, 0, 1});
    kernel_.set("pid", "numbers", {512, 16, 0, 0, 1});
    kernel_.set("dentry", "d_name", {256, 16, 0, 0, 1});
    kernel_.set("mount", "mnt", {512, 64, 0, 0, 1});
    kernel_.set("mm_struct", "mm_mt", {512, 16, 0, 0, 1});
    kernel_.set("fs_struct", "root", {64, 16, 0, 0, 1});
    kernel_.set("fs_struct", "pwd", {128, 16, 0, 0, 1});
    kernel_.set("file", "f_path", {256, 16, 0, 0, 1});
    kernel_.set("maple_range_64", "pivot", {8, 120, 0, 0, 15});
    kernel_.set("maple_range_64", "slot", {128, 128, 0, 0, 16});
    kernel_.set("maple_arange_64", "pivot", {8, 72, 0, 0, 9});
    kernel_.set("maple_arange_64", "slot", {80, 80, 0, 0, 10});
    kernel_.set_size("upid", 32);
    kernel_.set("cgroup_root", "cgrp", {1024, 1024, 0, 0, 1});
    kernel_.set("cgroup", "self", {0, 256, 0, 0, 1});
    kernel_.start_at("cgroup", 256);
    for (const char* id : {"CSS_ONLINE", "CSS_VISIBLE"}) kernel_.set_enumerator(id, 2);
    kernel_.set_enumerator("CGROUP_SUBSYS_COUNT", 4);
    kernel_.set_enumerator("memory_cgrp_id", 1);
    kernel_.set_enumerator("pids_cgrp_id", 2);
    build();
  }

  MadeUpKernel& kernel() { return kernel_; }
  SyntheticGuest& guest() { return guest_; }
  std::span<const GuestVirt> objects() const { return objects_; }
  static constexpr std::uint64_t object_size = 4096;

 private:
  GuestVirt object() {
    objects_.push_back(guest_.allocate(object_size, object_size));
    return objects_.back();
  }
  void point(GuestVirt at, const char* type, const char* member, GuestVirt to) {
    kernel_.put(at, type, member, to.raw());
  }

  void build() {
    const GuestVirt init = *kernel_.symbol("init_task"), task = object();
    objects_.push_back(init);
    kernel_.put(init, "task_struct", "comm", std::array<char, 10>{"swapper/0"});
    const auto links = [&](GuestVirt at) { return at + kernel_.offset("task_struct", "tasks"); };
    guest_.link_list(links(init), std::array{links(task)});
    const GuestVirt mm = object(), files = object(), fs = object(), signal = object();
    const GuestVirt nsproxy = object(), ns = object(), pid = object(), file = object();
    kernel_.put(task, "task_struct", "pid", std::uint32_t{1});
    for (const auto& [member, to] : {std::pair{"mm", mm},
                                     {"files", files},
                                     {"fs", fs},
                                     {"signal", signal},
                                     {"sighand", object()},
                                     {"real_cred", object()},
                                     {"nsproxy", nsproxy},
                                     {"thread_pid", pid},
                                     {"real_parent", init}}) {
      point(task, "task_struct", member, to);
    }
    point(*kernel_.symbol("init_pid_ns"), "pid_namespace", "child_reaper", task);
    kernel_.put(signal, "signal_struct", "nr_threads", std::uint32_t{1});
    for (const char* member : {"mnt_ns", "net_ns", "uts_ns"}) point(nsproxy, "nsproxy", member, ns);
    build_paths(fs, file, ns);
    build_files(files, file);
    build_memory(mm, file);
    build_cgroups(task);
  }

  /// One hierarchy: the root and a group below it, in which the process is.
  void build_cgroups(GuestVirt task) {
    const GuestVirt root = object(), group = object(), set = object(), link = object();
    const GuestVirt node = object(), name = object();
    kernel_.set_symbol("cgrp_dfl_root", root);
    guest_.put(*kernel_.symbol("cgrp_dfl_visible"), std::uint8_t{1});
    guest_.link_list(*kernel_.symbol("cgroup_roots"),
                     std::array{root + kernel_.offset("cgroup_root", "root_list")});
    const auto children = kernel_.offset("cgroup_subsys_state", "children");
    guest_.link_list(root + 1024 + children,
                     std::array{group + kernel_.offset("cgroup_subsys_state", "sibling")});
    guest_.link_list(group + children, {});
    for (const GuestVirt each : {root + 1024, group}) {
      point(each, "cgroup", "root", root);
      point(each, "cgroup", "kn", node);
      kernel_.put(each, "cgroup_subsys_state", "flags", std::uint64_t{2});
      for (unsigned i = 0; i < 4; ++i)
        guest_.put_pointer(each + kernel_.offset("cgroup", "subsys") + 8 * i, object());
    }
    point(group, "cgroup_subsys_state", "parent", root + 1024);
    point(node, "kernfs_node", "name", name);
    point(task, "task_struct", "cgroups", set);
    guest_.link_list(set + kernel_.offset("css_set", "cgrp_links"),
                     std::array{link + kernel_.offset("cgrp_cset_link", "cgrp_link")});
    point(link, "cgrp_cset_link", "cgrp", group);
  }

  void build_paths(GuestVirt fs, GuestVirt file, GuestVirt ns) {
    const GuestVirt dentry = object(), mount = object(), inode = object();
    point(dentry, "dentry", "d_parent", dentry);
    point(dentry, "dentry", "d_inode", inode);
    point(inode, "inode", "i_sb", object());
    point(mount, "mount", "mnt_parent", mount);
    point(mount + 512, "vfsmount", "mnt_root", dentry);
    point(mount + 512, "vfsmount", "mnt_sb", object());
    for (const GuestVirt path : {fs + 64, fs + 128, file + 256}) {
      point(path, "path", "mnt", mount + 512);
      point(path, "path", "dentry", dentry);
    }
    point(file, "file", "f_inode", inode);
    const std::uint32_t tree = kernel_.offset("mnt_namespace", "mounts.rb_node");
    const std::uint32_t list = kernel_.offset("mnt_namespace", "list");
    if (const auto node = kernel_.member("mount", "mnt_node")) {
      guest_.put_pointer(ns + tree, mount + node->offset);
    }
    guest_.link_list(ns + list, std::array{mount + kernel_.offset("mount", "mnt_list")});
  }

  void build_files(GuestVirt files, GuestVirt file) {
    const GuestVirt table = object(), slots = object(), bits = object();
    point(files, "files_struct", "fdt", table);
    kernel_.put(table, "fdtable", "max_fds", std::uint32_t{64});
    point(table, "fdtable", "fd", slots);
    point(table, "fdtable", "open_fds", bits);
    point(table, "fdtable", "close_on_exec", bits);
    guest_.put(bits, std::uint64_t{7});
    for (unsigned i = 0; i < 3; ++i) guest_.put_pointer(slots + 8 * i, file);
  }

  void build_memory(GuestVirt mm, GuestVirt file) {
    const GuestVirt area = object(), node = object();
    point(area, "vm_area_struct", "vm_mm", mm);
    kernel_.put(area, "vm_area_struct", "vm_end", std::uint64_t{0x1000});
    point(area, "vm_area_struct", "vm_file", file);
    point(mm, "mm_struct", "mmap", area);
    kernel_.put(mm, "mm_struct", "map_count", std::uint32_t{1});
    guest_.put(node + 8, std::uint64_t{0xfff});
    guest_.put_pointer(node + 128, area);
    kernel_.put(mm + 512, "maple_tree", "ma_root", node.raw() | 1 << 3 | 2);
    kernel_.put(mm, "mm_struct", "pgd", guest_.direct(guest_.root()).raw());
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  std::vector<GuestVirt> objects_;
};

/// Writes one word: a number, or a pointer to one of the objects.
void forge(Scene& scene, FuzzInput& input) {
  const auto objects = scene.objects();
  const GuestVirt object = objects[input.take<std::uint8_t>() % objects.size()];
  const GuestVirt at = object + (input.take<std::uint16_t>() % (Scene::object_size / 8)) * 8;
  const auto kind = input.take<std::uint8_t>();
  if (kind % 2 == 0) {
    const GuestVirt to = objects[input.take<std::uint8_t>() % objects.size()];
    scene.guest().put_pointer(at, to + input.take<std::uint16_t>() % Scene::object_size);
  } else if (kind % 4 == 1) {
    scene.guest().put(at, input.take<std::uint64_t>());
  } else {
    scene.guest().put(at, std::uint64_t{input.take<std::uint8_t>()});
  }
}

void read_forged(FuzzInput input) {
  const auto options = input.take<std::uint8_t>();
  Scene scene((options & 1) != 0);
  scene.guest().memory().set_live((options & 2) != 0);
  auto reader = (options & 4) != 0
                    ? StateReader::create_proven(scene.kernel(), scene.guest().memory(), nullptr,
                                                 {.attempts = 2})
                    : StateReader::create(scene.kernel(), scene.guest().memory());
  VMSIGHT_CHECK(reader);  // all members are there, whatever the input
  for (unsigned i = 0; i < 256 && !input.empty(); ++i) forge(scene, input);
  State state;
  StateOptions wanted;
  wanted.parts = part_processes | part_open_files | part_memory_maps | part_mounts | part_threads;
  wanted.attempts = 1;
  const Result<void> result = (*reader)->read(wanted, state);
  if (result) VMSIGHT_CHECK(state.processes.size() <= scene.objects().size());
}

}  // namespace
}  // namespace vmsight::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmsight::test::read_forged({data, size});
  return 0;
}
