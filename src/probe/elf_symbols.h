// Functions of an ELF file of which perhaps not all is there: a program in a guest's page cache.
//
// The loader itself finds functions by the dynamic hash table, so what that needs is in memory for
// functions that are used. Section headers, and the symbols of functions that are not exported, are
// needed by nobody in the guest: they are tried, and a file of the host's helps out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "probe/page_cache.h"
#include "vmsight/result.h"

namespace vmsight {

struct ElfFunction {
  std::string name;
  std::uint64_t file_offset = 0;
  std::uint64_t size = 0;
};

struct ElfAnswer {
  std::vector<ElfFunction> functions;
  bool whole = true;  // false: parts of the file are missing in which there could be more
};
/// All functions whose name matches (fnmatch), each place once. bad_data if it is no ELF file of
/// x86-64. The file is untrusted.
Result<ElfAnswer> find_elf_functions(FileBytes& file, const std::string& name, bool is_pattern);

/// Header and program headers: the same in two files of one build.
Result<std::vector<std::byte>> elf_head(FileBytes& file);

/// A file on the host. os if it cannot be read.
Result<std::unique_ptr<FileBytes>> open_host_file(const std::string& path);

}  // namespace vmsight
