// Which bytes of its own text a kernel rewrites while it runs, by its own tables.
//
//   jump labels        __start___jump_table          5 bytes: a NOP, or a jump
//   static calls       __start_static_call_sites     5 or 6 bytes; and __SCT__* trampolines
//   function tracing   ftrace_pages_start            5 bytes; ftrace_call, ftrace_regs_call ...
//   lock prefixes      __smp_locks                   1 byte, when the second CPU starts
//   kprobes            kprobe_table                  1 byte, or 5 if it was made a jump
//   BPF dispatchers    bpf_dispatcher_*_func         their entry
//
// Modules have such tables of their own: jump_entries, static_call_sites, smp_alt_modules.
// What else is patched (alternatives, returns, call padding) is patched at boot only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "detect/integrity/kernel_places.h"
#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

class TextPatches {
 public:
  /// What cannot be read explains nothing; `missing` names it.
  static TextPatches read(Kernel& kernel, Reader& reader, const KernelPlaces& places);

  bool explains(GuestVirt address) const;
  /// Where the trampoline of a return probe of vmsight ends that begins here; nullopt if there is none. It
  /// stays when its probe is gone, and does nothing but go on in the function.
  std::optional<GuestVirt> trampoline_end(Reader& reader, GuestVirt address) const;
  std::size_t size() const { return ranges_.size(); }
  const std::string& missing() const { return missing_; }

 private:
  struct Range {
    std::uint64_t start, end;
  };
  void add(GuestVirt start, std::uint64_t size) {
    ranges_.push_back({start.raw(), start.raw() + size});
  }
  void add_table(Kernel& kernel, Reader& reader, const char* first, const char* last,
                 std::uint32_t entry_size, std::uint64_t patched);
  void add_entries(Reader& reader, GuestVirt start, std::uint64_t count, std::uint32_t entry_size,
                   std::uint64_t patched);
  void add_modules(Kernel& kernel, Reader& reader, const KernelPlaces& places);
  void add_module_locks(Kernel& kernel, Reader& reader);
  void add_ftrace(Kernel& kernel, Reader& reader);
  void add_kprobes(Kernel& kernel, Reader& reader);
  void add_symbols(const KernelPlaces& places);
  void miss(std::string_view what);
  void sort();

  std::vector<Range> ranges_;  // sorted, not overlapping
  std::string missing_;
};

}  // namespace vmsight
