// Who owns a kernel's executable memory beside its own text, by tables of its own.
//
//   modules             text, and that of their start while it runs
//   BPF                 packs (since 6.1), programs, trampolines, dispatchers
//   kprobes             copied instructions, detours
//   function tracing    trampolines
//   ITS                 thunks against Indirect Target Selection
//   execmem_cache       where newer kernels cut all of these from
//   firmware, kexec     code that wakes CPUs, or starts another kernel
#pragma once

#include <string_view>
#include <vector>

#include "detect/integrity/kernel_places.h"
#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

struct CodeOwner {
  GuestVirt start, end;  // half-open, whole pages
  /// Its allocation may be larger than the kernel tells, but ends at a guard page: all that is
  /// executable side by side with it is its own.
  bool to_guard_page = false;
};

class CodeOwners {
 public:
  /// A table that cannot be read owns nothing, and `missing` names it.
  static CodeOwners read(Kernel& kernel, Reader& reader, const KernelPlaces& places);
  /// Programs of BPF by themselves, for kernels that do not list all of them: they lie in areas of their
  /// own, which bpf_prog_alloc_no_stats() asked for. Errors of read_vmap_areas().
  Result<void> add_bpf_programs(Kernel& kernel, Reader& reader);

  std::span<const CodeOwner> owners() const { return owners_; }
  const std::string& missing() const { return missing_; }

 private:
  void add(GuestVirt start, std::uint64_t size, bool to_guard_page = false);
  void add_modules(const KernelPlaces& places);
  void add_bpf(Kernel& kernel, Reader& reader);
  void add_kprobes(Kernel& kernel, Reader& reader);
  void add_tracers(Kernel& kernel, Reader& reader);
  void add_its(Kernel& kernel, Reader& reader, const KernelPlaces& places);
  void add_its_array(Reader& reader, GuestVirt pages, std::uint32_t count);
  void add_execmem(Kernel& kernel, Reader& reader);
  void add_real_mode(Kernel& kernel, Reader& reader);
  void add_kexec(Kernel& kernel, Reader& reader);
  void finish(Reader& reader, bool whole, std::string_view what);

  std::vector<CodeOwner> owners_;
  std::string missing_;
};

}  // namespace vmsight
