// What a process's mm_struct tells: sizes, command line, executable.
#pragma once

#include "state/file_objects.h"

namespace vmsight {

class ProcessMemoryReader {
 public:
  static Result<ProcessMemoryReader> resolve(Kernel& kernel, const FileObjects& objects);

  /// Sets rss_bytes, vsize_bytes, locked_bytes, exe, exe_file and cmdline from the mm_struct at `mm`.
  void read(ProcessContext& process, GuestVirt mm, Process& record) const;

 private:
  std::uint64_t resident_pages(Reader& reader, GuestVirt mm) const;
  void read_cmdline(ProcessContext& process, GuestVirt mm, Process& record) const;

  FileObjects objects_;
  struct Offsets {
    Offset pgd, total_vm, locked_vm, exe_file, arg_start, arg_end, env_start, env_end, rss;
  } at_{};
  std::uint32_t counter_stride_ = 8;  // bytes from one RSS counter to the next
};

/// Splits the bytes of /proc/PID/cmdline into arguments.
std::vector<std::string_view> split_arguments(std::string_view bytes);

}  // namespace vmsight
