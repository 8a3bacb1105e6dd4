// The guest's processors, as /proc/cpuinfo and /sys/devices/system/cpu show them.
#pragma once

#include <cstdint>
#include <vector>

#include "state/context.h"
#include "state/members.h"

namespace vmsight {

class CpusReader {
 public:
  static Result<CpusReader> resolve(Kernel& kernel);
  /// One record for each present CPU; /proc/cpuinfo leaves out those that are not online.
  void read(Context& context) const;

 private:
  /// Bit `cpu` of a struct cpumask.
  static bool in_mask(Reader& reader, GuestVirt mask, std::size_t cpu);
  void resolve_details(Kernel& kernel, Members& members);
  void resolve_caches(Members& members);
  /// Names of the bits of cpuinfo_x86.x86_capability; empty ones are not shown.
  struct KnownNames {
    std::vector<std::string> flags, bugs;
  };
  struct NameTable {
    GuestVirt start;
    std::size_t words = 0;
  };
  static NameTable find_names(Members& members, const char* symbol);
  void read_names(Reader& reader) const;
  static std::vector<std::string> read_name_table(Reader& reader, const NameTable& table);
  void read_cpu(Context& context, std::size_t cpu) const;
  void read_details(Context& context, GuestVirt info, std::size_t cpu, CpuInfo& record) const;
  void read_capabilities(Context& context, GuestVirt info, CpuInfo& record) const;
  std::uint32_t ticks_a_second(Reader& reader) const;
  void read_bogomips(Reader& reader, GuestVirt info, CpuInfo& record) const;
  void read_caches(Context& context, std::size_t cpu, CpuInfo& record) const;
  CpuCache read_cache(Context& context, GuestVirt leaf) const;

  GuestVirt present_, online_, info_, khz_;
  Member vendor_, model_;
  std::uint32_t cache_ = 0;
  // Of struct cpuinfo_x86, where this kernel has them.
  Member family_, model_number_, stepping_, physical_bits_, virtual_bits_, capability_;
  Offset socket_ = absent, core_ = absent, loops_ = absent;
  NameTable flag_names_, bug_names_;
  mutable std::optional<KnownNames> known_names_;
  mutable std::size_t left_ = 0;  // of max_details, in a view
  GuestVirt node_, jiffies_clock_;
  Offset clock_mult_ = absent, clock_shift_ = absent;  // of struct clocksource
  // Of the caches; info_list is absent in kernels without them.
  GuestVirt cache_info_;
  Offset info_list_ = absent, leaves_ = absent;
  std::uint32_t leaf_size_ = 0;
  struct CacheOffsets {
    Offset level, type, line, sets, ways, size, cpus;
  } at_{};
};

}  // namespace vmsight
