// Symbols and types of loaded kernel modules.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernel/memo.h"
#include "vmsight/reader.h"

namespace vmsight {

struct ModuleSymbol {
  std::string name;
  char type = '?';
  GuestVirt address;
};

struct LoadedModule {
  struct Range {
    GuestVirt start;
    std::uint64_t size = 0;
  };
  GuestVirt at;  // struct module
  std::string name;
  std::vector<Range> memory;  // text and data
  std::vector<Range> text;    // what of it may be executed, that of its start too while it is there
  std::vector<ModuleSymbol> symbols;
  bool contains(GuestVirt address) const;
};

/// The modules in the kernel's list, as /proc/kallsyms shows them. What cannot be read of a
/// module is left out. unsupported, naming the member, if the kernel's layout is not known.
Result<std::vector<LoadedModule>> read_modules(Kernel& kernel, Reader& reader);

/// The same without their symbols: what is loaded, and where.
Result<std::vector<LoadedModule>> read_module_places(Kernel& kernel, Reader& reader);

/// The BTF of a loaded module; nullopt if it is not loaded or has none.
Result<std::optional<std::vector<std::byte>>> read_module_btf(Kernel& kernel, Reader& reader,
                                                              std::string_view module);

}  // namespace vmsight
