// Plants a kernel image that find_kernel() understands into bare RAM: version text, kallsyms,
// notes, BTF, variables, and the page tables that map it, all inside the image as in a real one.
// Several may be planted into one RAM, as warm reboots leave them.
//
//   text     +0       empty
//   rodata   +2 MiB   +0x100 version text, +0x1000 notes, +0x2000 BTF, +0x10000 kallsyms
//   data     +4 MiB   init_task and variables, +0x100000 page tables
//   _end     +6 MiB
#pragma once

#include <string>

#include "support/byte_memory.h"
#include "support/synthetic_kallsyms.h"

namespace vmsight::test {

struct KernelSpec {
  GuestPhys text{16U << 20};              // multiple of 2 MiB
  GuestVirt text_va{0xffffffff81000000};  // the same
  GuestVirt page_offset{0xffff888000000000};
  GuestVirt vmemmap{0xffffea0000000000};
  bool five_level = false;
  bool small_pages = false;  // the first 2 MiB of text are mapped by 4 KiB pages
  TableOrder order = TableOrder::fresh;
  KallsymsLayout::Encoding encoding = KallsymsLayout::Encoding::absolute_percpu;
  std::string banner = "Linux version 6.1.0-test (builder) #1 SMP Debian";
  std::uint64_t banner_offset = 0x100;  // in rodata; from 0x1000 on it is hidden
  std::byte build_id{0xab};             // all 20 bytes of it
  bool btf = true;
  std::uint64_t jiffies = 4294892296;
  unsigned cpus = 2;
  bool started = true;   // page tables are filled in
  bool crashed = false;  // it has stopped its CPUs to start another kernel
};

/// Where the tests find things again.
struct PlantedKernel {
  GuestPhys rodata, page_table, user_table, jiffies, init_task, banner, kallsyms;
  std::uint64_t size = 0;
};

inline constexpr std::uint32_t synthetic_comm_offset = 64;  // task_struct.comm

PlantedKernel plant_kernel(ByteMemory& memory, const KernelSpec& spec);

}  // namespace vmsight::test
