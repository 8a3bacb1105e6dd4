// Files of ours that QEMU writes to: for pmemsave, dumps and migration. They have no name on any
// file system, so nothing is left of them however we end.
//
//   /proc/OUR-PID/fd/N     where QEMU may open our descriptors (same user, or root)
//   /proc/self/fd/M        of a copy that QEMU was passed (add-fd), elsewhere
#pragma once

#include <memory>
#include <string>

#include "base/os.h"
#include "qemu/monitor_session.h"

namespace vmsight {

class SaveFile {
 public:
  SaveFile() = default;
  SaveFile(SaveFile&& other) noexcept = default;
  SaveFile& operator=(SaveFile&& other) noexcept;
  ~SaveFile() { release(); }

  int fd() const { return fd_.get(); }
  /// What QEMU calls it.
  const std::string& path() const { return path_; }
  /// What we call it, to open it once more.
  std::string own_path() const;

 private:
  friend class SaveFiles;
  void release();

  UniqueFd fd_;
  std::string path_;
  std::shared_ptr<MonitorSession> session_;  // only where QEMU has a copy of the descriptor
  std::int64_t set_ = -1;                    // fdset-id of the copy
};

class SaveFiles {
 public:
  /// Finds out which way QEMU can write to us, by saving a word of the guest's RAM. unsupported,
  /// with QEMU's words, if there is none.
  static Result<SaveFiles> make(std::shared_ptr<MonitorSession> session, const Vm& vm);

  /// In memory.
  Result<SaveFile> in_memory();
  /// On the disk that holds temporary files ($TMPDIR, else /var/tmp), which must have `size` bytes
  /// free: os with ENOSPC otherwise.
  Result<SaveFile> on_disk(std::uint64_t size);

 private:
  Result<SaveFile> share(UniqueFd fd);
  Result<void> try_saving(GuestPhys from);

  std::shared_ptr<MonitorSession> session_;
  uid_t owner_ = 0;    // of the QEMU process
  bool pass_ = false;  // QEMU cannot open our descriptors: it is passed copies
};

/// The command that copies guest-physical memory into the file from its start, replacing what was
/// there. It runs in QEMU's main loop, about 2 ms for a MiB; the vCPUs run on.
QmpClient::Command save_command(GuestPhys from, std::uint64_t size, const SaveFile& into);

/// How long QEMU may take to write so much to a file: a slow disk takes 20 MB/s.
MonitorSession::Milliseconds save_patience(std::uint64_t bytes);

/// Where temporary files of this process go: $TMPDIR, else /var/tmp.
std::string temporary_directory();

}  // namespace vmsight
