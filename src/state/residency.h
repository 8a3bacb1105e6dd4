// How much of a memory area is in RAM: Rss and Dirty of /proc/PID/smaps, from the page table.
#pragma once

#include <cstdint>

#include "kernel/architecture.h"
#include "state/members.h"
#include "state/process_context.h"

namespace vmsight {

class ResidencyReader {
 public:
  static Result<ResidencyReader> resolve(Kernel& kernel);

  /// Sets rss_bytes and dirty_bytes of an area. Pages that are swapped out, and the zero page, are
  /// not resident; huge pages of hugetlbfs are not counted, as smaps does not. Leaves both empty
  /// if a table cannot be read.
  void measure(ProcessContext& process, GuestVirt mm, bool is_hugetlb, MemoryMap& map) const;

 private:
  struct Walk;
  bool walk_table(Walk& walk, GuestPhys table, unsigned level, std::uint64_t base) const;
  void count(Walk& walk, const PageEntry& entry, std::uint64_t page_bytes) const;
  bool is_dirty(Reader& reader, std::uint64_t frame) const;
  GuestVirt head_of(Reader& reader, GuestVirt page) const;
  std::uint64_t huge_zero_frame(Reader& reader) const;

  GuestVirt vmemmap_;
  std::uint64_t page_bytes_ = 0;  // of struct page
  std::uint64_t dirty_flag_ = 0;
  GuestVirt huge_zero_frame_, huge_zero_page_;
  struct Offsets {
    Offset pgd, flags, head;
  } at_{};
};

}  // namespace vmsight
