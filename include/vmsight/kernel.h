// A Linux kernel found in guest memory: its address spaces, symbols and types.
// Knows nothing of hosts or techniques.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/address.h"
#include "vmsight/memory.h"
#include "vmsight/result.h"

namespace VMSIGHT_PUBLIC vmsight {

struct Architecture;  // src/kernel/architecture.h: all that is the processor's

/// An address space: a page table, and for the kernel's own the two linear windows that
/// need no walk.
///
///   direct map    va = page_offset + pa               (arithmetic)
///   kernel image  va = pa + image_delta               (arithmetic)
///   the rest      walk of `levels` tables from `root` (vmalloc, per-CPU chunks, user pages)
class AddressSpace {
 public:
  struct Window {
    GuestVirt start{}, end{};  // half-open
    std::uint64_t delta = 0;   // va - pa, modulo 2^64
    bool contains(GuestVirt va) const { return va >= start && va < end; }
  };

  /// Nothing is mapped.
  AddressSpace() = default;
  AddressSpace(const Architecture& architecture, GuestPhys root, unsigned levels)
      : architecture_(&architecture), root_(root), levels_(levels) {}
  /// Another page table of the same guest, without windows: a process's.
  AddressSpace with_root(GuestPhys root) const;
  void set_direct_map(Window window) { direct_map_ = window; }
  void set_image(Window window) { image_ = window; }

  GuestPhys root() const { return root_; }
  unsigned levels() const { return levels_; }
  /// Not of one in which nothing is mapped.
  const Architecture& architecture() const;
  const Window& direct_map() const { return direct_map_; }
  const Window& image() const { return image_; }

  /// nullopt if the address is not mapped (or not canonical). At most 5 reads.
  std::optional<GuestPhys> translate(GuestMemory& memory, GuestVirt va) const;

  /// How many bytes are mapped and readable, from the first on: so many are copied.
  std::size_t copy(GuestMemory& memory, GuestVirt from, std::span<std::byte> into) const;

  /// The page table walk alone; also gives the size of the page that maps the address.
  struct Walk {
    GuestPhys address;
    std::uint64_t mapping_size = page_size;  // 4 KiB, 2 MiB or 1 GiB
    bool writable = false, user = false, executable = false;
  };
  std::optional<Walk> walk(GuestMemory& memory, GuestVirt va) const;
  /// Appends the tables that translate() reads for this address: none in the windows.
  void append_tables(GuestMemory& memory, GuestVirt va, std::vector<GuestPhys>& into) const;

 private:
  const Architecture* architecture_ = nullptr;
  GuestPhys root_{};
  unsigned levels_ = 0;
  Window direct_map_{}, image_{};
};

/// A member of a structure, resolved through anonymous members and dotted paths.
struct Member {
  std::uint32_t offset = 0;     // bytes from the start of the outermost structure
  std::uint32_t size = 0;       // bytes; for a bitfield those of its storage
  std::uint8_t bit_offset = 0;  // within the u64 at `offset`; bitfields only
  std::uint8_t bit_size = 0;    // 0 unless a bitfield
  std::uint32_t count = 1;      // elements, if an array
  friend bool operator==(const Member&, const Member&) = default;
};

class Btf;  // src/kernel/btf.h: the whole type graph, for `type`, `print` and probes

/// A symbol of the kernel or of a module.
struct Symbol {
  std::string_view name;
  char type = '?';  // the letter of /proc/kallsyms
  GuestVirt address;
  std::string_view module;  // "" for the kernel itself
};

/// One kernel image found by scanning. After guest reboots there may be several.
struct KernelCandidate {
  unsigned index = 0;
  std::string banner;    // "Linux version 6.1.0-..."
  std::string build_id;  // hex, "" if unreadable
  GuestPhys rodata;      // where it was found
  bool live = false;     // chosen as the running one
  std::string why;       // evidence for or against: "a vCPU's CR3 maps it", "its clock moves" ...
};

/// Who opens the files of the cache; defined in src/kernel.
class CacheFiles;

struct FindKernelOptions {
  std::vector<std::uint64_t> cr3;       // of the vCPUs, if known: tells the live kernel
  std::optional<GuestPhys> page_table;  // of the kernel to take: an image names it
  std::string cache_dir;                // "" = no cache
  std::shared_ptr<CacheFiles> cache;    // by whom its files are opened; nullptr = by ourselves
  /// What tells this VM from all others, now and later (lower-case letters, digits, '-'): where its
  /// kernel is will be remembered in the cache, and believed the next time if the kernel's clock
  /// shows that it runs. "" = search all RAM, for images and for those who want all candidates.
  std::string vm_identity;
  std::optional<std::string> choose;               // --kernel: an index or a prefix of a build-id
  std::function<void(std::string_view)> progress;  // long work says what it does
};

/// Timings and provenance of an attach, for `info` and the benchmarks.
struct AttachReport {
  bool cache_used = false;
  std::string cache_note;  // "rebuilt: checksum does not match" ...
  std::uint64_t scan_ns = 0, symbols_ns = 0, types_ns = 0, total_ns = 0;
  std::vector<KernelCandidate> candidates;
};

class Kernel {
 public:
  virtual ~Kernel() = default;

  virtual const std::string& banner() const = 0;
  virtual const std::string& build_id() const = 0;
  virtual const AddressSpace& space() const = 0;
  virtual const AttachReport& attach_report() const = 0;

  /// The address of a kernel symbol (not of modules). Remembered in the cache.
  virtual std::optional<GuestVirt> symbol(std::string_view name) = 0;
  /// All symbols of the kernel and its modules, sorted by address; decoded on first use.
  virtual Result<std::span<const Symbol>> symbols() = 0;
  /// Modules have come or gone: symbols() and locate() read them anew when they are asked next. What they
  /// gave before is valid no more.
  virtual void forget_modules() = 0;
  /// The symbol that covers an address: name, offset. nullopt outside all text and data.
  struct Location {
    std::string_view name;
    std::uint64_t offset;
    std::string_view module;
  };
  virtual std::optional<Location> locate(GuestVirt address) = 0;

  /// Bytes from a symbol of the kernel's image to the next one; nullopt if that cannot be told.
  /// Remembered in the cache.
  virtual std::optional<std::uint64_t> symbol_size(std::string_view name) = 0;

  /// A member such as ("task_struct", "thread_info.cpu"); nullopt if this kernel has none.
  /// `type` may be "module:name" for a type of a module's BTF ("virtio_net:virtnet_info").
  /// Remembered in the cache, so that a second attach need not parse BTF.
  virtual std::optional<Member> member(std::string_view type, std::string_view path) = 0;
  virtual std::optional<std::uint64_t> type_size(std::string_view type) = 0;
  virtual std::optional<std::int64_t> enumerator(std::string_view name) = 0;
  /// The whole type graph; parsed on first use.
  virtual Result<const Btf*> btf() = 0;
  /// Of a loaded module: its own types and the kernel's. not_found if it is not loaded or has none.
  virtual Result<const Btf*> btf_of(std::string_view module) = 0;

  /// page_offset_base and friends, read from the kernel's own variables.
  virtual GuestVirt page_offset() const = 0;
  virtual GuestVirt vmemmap() const = 0;
  /// Start of each possible CPU's per-CPU area (__per_cpu_offset); only CPUs the kernel set up.
  virtual std::span<const std::uint64_t> per_cpu_offsets() const = 0;
  GuestVirt per_cpu(GuestVirt symbol, std::size_t cpu) const {
    return symbol + per_cpu_offsets()[cpu];
  }

  /// Whether this is still what the guest runs; for readers that come back, once a view. A warm
  /// reboot leaves the old kernel whole in memory, with a clock that stands still. vm_gone if
  /// the kernel was overwritten, or if another has appeared since its clock fell behind. Costs
  /// two page reads; a scan of RAM at the second view, and while the clock is behind.
  virtual Result<void> check_running() = 0;

  /// Writes what was learnt since attach to the cache. Errors are for the log only.
  virtual Result<void> save_cache() = 0;
};

/// Finds the running Linux kernel in guest memory, without help. Errors: not_found (no kernel;
/// says what was found), unsupported (no BTF, no kallsyms), ambiguous (names the candidates).
Result<std::unique_ptr<Kernel>> find_kernel(GuestMemory& memory, const FindKernelOptions& options);

}  // namespace vmsight
