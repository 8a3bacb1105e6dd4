// The symbols of one kernel image by name, without KASLR: remembered ones at once, others from
// the kallsyms tables, which are read from the guest on the first miss.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/kallsyms.h"
#include "kernel/memo.h"
#include "vmsight/memory.h"
#include "vmsight/result.h"

namespace vmsight {

class SymbolTable {
 public:
  /// An image whose read-only data begins at `rodata`. The memo (kept by reference) may know the
  /// build already; what is learnt goes into it. Both must outlive the table.
  SymbolTable(GuestMemory& memory, GuestPhys rodata, KernelMemo& memo)
      : memory_(memory), rodata_(rodata), memo_(memo) {}

  /// nullopt if the kernel has no such symbol; the error if its tables could not be read.
  Result<std::optional<SymbolValue>> find(std::string_view name);
  /// A symbol without which nothing works: unsupported if it is missing.
  Result<SymbolValue> require(std::string_view name);
  /// All of them.
  Result<const Kallsyms*> tables();
  /// Nanoseconds spent on finding, reading and checking the tables.
  std::uint64_t load_ns() const { return load_ns_; }

 private:
  Result<Kallsyms> load_remembered();
  Result<Kallsyms> search();

  GuestMemory& memory_;
  GuestPhys rodata_;
  KernelMemo& memo_;
  std::optional<Kallsyms> kallsyms_;
  std::uint64_t load_ns_ = 0;
};

/// The token table in [start, start + size) and what it belongs to, as position and bytes.
struct KallsymsAt {
  GuestPhys start;
  Kallsyms tables;
};
Result<KallsymsAt> read_kallsyms(GuestMemory& memory, GuestPhys start, std::uint64_t size);

}  // namespace vmsight
