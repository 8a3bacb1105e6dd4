#include "state/file_targets.h"

#include <algorithm>

namespace vmsight {

namespace {
// Of all epolls of a view together. A server that watches more connections than this shows the first.
constexpr std::size_t max_targets = 1u << 20;
}  // namespace

Result<FileTargets> FileTargets::resolve(Kernel& kernel) {
  Members members(kernel);
  FileTargets targets;
  targets.at_ = {
      .root = members.offset("eventpoll", "rbr.rb_root.rb_node"),
      .node_left = members.offset("rb_node", "rb_left"),
      .node_right = members.offset("rb_node", "rb_right"),
      .item_node = members.offset("epitem", "rbn"),
      .item_fd = members.offset("epitem", "ffd.fd"),
      .pid_numbers = members.offset("pid", "numbers"),
      .pid_tasks = members.offset("pid", "tasks"),
      .number_nr = members.offset("upid", "nr"),
      .eventfd_id = members.find("eventfd_ctx", "id"),
  };
  VMSIGHT_TRY_VOID(members.check());
  return targets;
}

void FileTargets::read(ProcessContext& process, GuestVirt file, GuestVirt inode,
                       const FileObjects& objects, OpenFile& record) const {
  Reader& reader = process.reader();
  const GuestVirt data = reader.pointer(file + objects.at().private_data);
  if (record.path == "anon_inode:[eventpoll]") return read_epoll(process, data, record);
  if (record.path == "anon_inode:[eventfd]" && at_.eventfd_id != absent) {
    record.targets = {static_cast<std::int32_t>(reader.u32(data + at_.eventfd_id))};
  }
  if (record.path != "anon_inode:[pidfd]") return;
  // Since 6.9 each has an inode of a file system of its own, which knows the struct pid.
  const GuestVirt own = reader.pointer(inode + objects.at().i_private);
  const GuestVirt pid = own.raw() != 0 ? own : data;
  if (pid.raw() == 0) return;
  const bool lives = reader.pointer(pid + at_.pid_tasks).raw() != 0;  // PIDTYPE_PID, the first
  record.targets = {
      lives ? static_cast<std::int32_t>(reader.u32(pid + at_.pid_numbers + at_.number_nr)) : -1};
}

/// Walks the tree of what it watches. Its links are proven: a node that moves changes one of them.
void FileTargets::read_epoll(ProcessContext& process, GuestVirt epoll, OpenFile& record) const {
  Reader& reader = process.reader();
  const auto link = [&](GuestVirt at) {
    return process.proofs.expect(reader, at, reader.pointer(at));
  };
  std::vector<GuestVirt> waiting = {link(epoll + at_.root)};
  std::size_t& met = process.shared.targets;
  while (!waiting.empty() && reader.ok()) {
    const GuestVirt node = waiting.back();
    waiting.pop_back();
    if (node.raw() == 0) continue;
    if (++met > max_targets) {
      if (met == max_targets + 1) {
        process.context.state.problem("open_files", "epolls watch too many files to show them all");
      }
      break;
    }
    record.targets.push_back(
        static_cast<std::int32_t>(reader.u32(node - at_.item_node + at_.item_fd)));
    waiting.push_back(link(node + at_.node_left));
    waiting.push_back(link(node + at_.node_right));
  }
  std::sort(record.targets.begin(), record.targets.end());
}

}  // namespace vmsight
