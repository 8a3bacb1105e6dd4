// What an anonymous file refers to: the descriptors that an epoll watches, the process of a pidfd,
// the number of an eventfd. Elsewhere in /proc it stands in fdinfo.
#pragma once

#include "state/file_objects.h"

namespace vmsight {

class FileTargets {
 public:
  static Result<FileTargets> resolve(Kernel& kernel);

  /// Sets record.targets by record.path. `file` is its struct file, `inode` that file's. A fault
  /// means that it is not known.
  void read(ProcessContext& process, GuestVirt file, GuestVirt inode, const FileObjects& objects,
            OpenFile& record) const;

 private:
  void read_epoll(ProcessContext& process, GuestVirt epoll, OpenFile& record) const;

  struct Offsets {
    Offset root, node_left, node_right;  // of eventpoll: its red-black tree; of rb_node
    Offset item_node, item_fd;           // of epitem
    Offset pid_numbers, pid_tasks, number_nr;
    Offset eventfd_id;  // absent before 5.2
  } at_{};
};

}  // namespace vmsight
