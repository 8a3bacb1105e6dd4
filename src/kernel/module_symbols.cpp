#include "kernel/module_symbols.h"

#include <algorithm>
#include <cctype>
#include <unordered_set>

#include "kernel/bytes.h"
#include "kernel/kallsyms.h"

namespace vmsight {
namespace {

constexpr std::size_t max_modules = 4096;
constexpr std::uint32_t max_module_symbols = 1U << 18;
constexpr std::uint32_t max_all_symbols = 1U << 20;
constexpr std::uint64_t max_module_size = 1U << 30;
constexpr std::uint32_t max_module_btf = 64U << 20;
constexpr std::uint64_t elf_symbol_size = 24;  // Elf64_Sym: u32 name ... u64 value at 8

/// The members that are needed; nullopt ones differ between kernels.
struct ModuleLayout {
  Member list, name, kallsyms, symtab, num_symtab, strtab;
  std::optional<Member> typetab, state, mem, mem_base, mem_size, core_base, core_size;
  std::optional<Member> core_text, init_base, init_text;
  std::int64_t text_kind = 0, init_text_kind = 4;  // of mem[]: enum mod_mem_type
  std::optional<Member> exports, num_exports, export_value, export_name;
  std::uint64_t export_size = 0;
  std::optional<std::int64_t> unformed;
};

Result<ModuleLayout> resolve(Kernel& kernel) {
  ModuleLayout layout;
  const struct {
    Member& into;
    const char* type;
    const char* path;
  } needed[] = {
      {layout.list, "module", "list"},
      {layout.name, "module", "name"},
      {layout.kallsyms, "module", "kallsyms"},
      {layout.symtab, "mod_kallsyms", "symtab"},
      {layout.num_symtab, "mod_kallsyms", "num_symtab"},
      {layout.strtab, "mod_kallsyms", "strtab"},
  };
  for (const auto& item : needed) {
    const auto member = kernel.member(item.type, item.path);
    if (!member) {
      return Error{
          .code = ErrorCode::unsupported,
          .message = fmt::format("read modules: the kernel has no {}.{}", item.type, item.path)};
    }
    item.into = *member;
  }
  layout.typetab = kernel.member("mod_kallsyms", "typetab");
  layout.state = kernel.member("module", "state");
  layout.unformed = kernel.enumerator("MODULE_STATE_UNFORMED");
  layout.mem = kernel.member("module", "mem");
  layout.mem_base = kernel.member("module_memory", "base");
  layout.mem_size = kernel.member("module_memory", "size");
  layout.core_base = kernel.member("module", "core_layout.base");
  layout.core_size = kernel.member("module", "core_layout.size");
  layout.core_text = kernel.member("module", "core_layout.text_size");
  layout.init_base = kernel.member("module", "init_layout.base");
  layout.init_text = kernel.member("module", "init_layout.text_size");
  layout.text_kind = kernel.enumerator("MOD_TEXT").value_or(layout.text_kind);
  layout.init_text_kind = kernel.enumerator("MOD_INIT_TEXT").value_or(layout.init_text_kind);
  layout.exports = kernel.member("module", "syms");
  layout.num_exports = kernel.member("module", "num_syms");
  layout.export_value = kernel.member("kernel_symbol", "value_offset");
  layout.export_name = kernel.member("kernel_symbol", "name_offset");
  layout.export_size = kernel.type_size("kernel_symbol").value_or(0);
  return layout;
}

/// Calls `visit` with each entry of a list_head list; stops at a fault or a cycle's bound. Whether
/// it came round.
template <typename Visit>
bool for_each_entry(Reader& reader, GuestVirt head, std::size_t limit, const Member& link,
                    Visit visit) {
  GuestVirt node = reader.pointer(head);
  for (std::size_t i = 0; i < limit && node != head && node.raw() != 0 && reader.ok(); ++i) {
    if (!visit(node - link.offset)) return false;
    node = reader.pointer(node);
  }
  return reader.ok() && node == head;
}

class ModuleReader {
 public:
  ModuleReader(Reader& reader, const ModuleLayout& layout) : reader_(reader), layout_(layout) {}

  /// nullopt for a module that is not complete yet, or not readable.
  enum class Extent { all, places };
  std::optional<LoadedModule> read(GuestVirt module, Extent extent) {
    if (layout_.state && layout_.unformed &&
        static_cast<std::int64_t>(reader_.value(module, *layout_.state)) == *layout_.unformed)
      return std::nullopt;
    LoadedModule result;
    result.at = module;
    result.name = string(module + layout_.name.offset);
    read_memory(module, result);
    if (extent == Extent::places) return reader_.ok() ? std::optional(result) : std::nullopt;
    read_exports(module);
    read_symbols(module, result);
    exports_.clear();
    return result;
  }

 private:
  std::string string(GuestVirt at) { return std::string(reader_.c_string(at, buffer_)); }

  static void add_range(std::vector<LoadedModule::Range>& to, std::uint64_t base,
                        std::uint64_t size) {
    if (base != 0 && size != 0 && size <= max_module_size) to.push_back({GuestVirt(base), size});
  }

  void read_memory(GuestVirt module, LoadedModule& into) {
    if (layout_.mem && layout_.mem_base && layout_.mem_size && layout_.mem->count != 0) {
      const std::uint32_t stride = layout_.mem->size / layout_.mem->count;
      for (std::uint32_t i = 0; i < std::min(layout_.mem->count, 16U); ++i) {
        const GuestVirt at = module + layout_.mem->offset + i * stride;
        const std::uint64_t base = reader_.value(at, *layout_.mem_base);
        const std::uint64_t size = reader_.value(at, *layout_.mem_size);
        add_range(into.memory, base, size);
        if (i == layout_.text_kind || i == layout_.init_text_kind) add_range(into.text, base, size);
      }
      return;
    }
    if (!layout_.core_base || !layout_.core_size) return;
    const std::uint64_t base = reader_.value(module, *layout_.core_base);
    add_range(into.memory, base, reader_.value(module, *layout_.core_size));
    if (layout_.core_text) add_range(into.text, base, reader_.value(module, *layout_.core_text));
    if (layout_.init_base && layout_.init_text) {
      add_range(into.text, reader_.value(module, *layout_.init_base),
                reader_.value(module, *layout_.init_text));
    }
  }

  /// struct kernel_symbol holds distances from its own fields (CONFIG_HAVE_ARCH_PREL32).
  void read_exports(GuestVirt module) {
    if (!layout_.exports || !layout_.num_exports || !layout_.export_value || !layout_.export_name)
      return;
    const GuestVirt start(reader_.value(module, *layout_.exports));
    const std::uint64_t n =
        std::min<std::uint64_t>(reader_.value(module, *layout_.num_exports), max_module_symbols);
    for (std::uint64_t i = 0; i < n && reader_.ok(); ++i) {
      const GuestVirt entry = start + i * layout_.export_size;
      const GuestVirt value = follow(entry + layout_.export_value->offset);
      const GuestVirt name = follow(entry + layout_.export_name->offset);
      exports_.insert(fmt::format("{:x} {}", value.raw(), string(name)));
    }
  }
  GuestVirt follow(GuestVirt at) {
    return at + static_cast<std::uint64_t>(std::int64_t{reader_.get<std::int32_t>(at)});
  }

  void read_symbols(GuestVirt module, LoadedModule& into) {
    const GuestVirt kallsyms(reader_.value(module, layout_.kallsyms));
    const GuestVirt symtab(reader_.value(kallsyms, layout_.symtab));
    const GuestVirt strtab(reader_.value(kallsyms, layout_.strtab));
    const GuestVirt types(layout_.typetab ? reader_.value(kallsyms, *layout_.typetab) : 0);
    const std::uint64_t n =
        std::min<std::uint64_t>(reader_.value(kallsyms, layout_.num_symtab), max_module_symbols);
    for (std::uint64_t i = 1; i < n && reader_.ok() && total_ < max_all_symbols; ++i) {
      const GuestVirt entry = symtab + i * elf_symbol_size;
      ModuleSymbol symbol{.name = string(strtab + reader_.u32(entry)),
                          .type = types.raw() == 0 ? '?' : reader_.get<char>(types + i),
                          .address = reader_.pointer(entry + 8)};
      if (symbol.name.empty()) continue;
      symbol.type = as_shown(symbol);
      into.symbols.push_back(std::move(symbol));
      ++total_;
    }
  }

  /// /proc/kallsyms tells exported symbols of modules by an upper-case letter; where a kernel
  /// keeps those for GPL modules in a table of their own, it does not look there.
  char as_shown(const ModuleSymbol& symbol) {
    const bool exported =
        exports_.contains(fmt::format("{:x} {}", symbol.address.raw(), symbol.name));
    const auto type = static_cast<unsigned char>(symbol.type);
    return static_cast<char>(exported ? std::toupper(type) : std::tolower(type));
  }

  Reader& reader_;
  const ModuleLayout& layout_;
  std::array<char, max_symbol_name> buffer_;
  std::unordered_set<std::string> exports_;  // "address name" of the module at hand
  std::uint32_t total_ = 0;
};

}  // namespace

bool LoadedModule::contains(GuestVirt address) const {
  return std::any_of(memory.begin(), memory.end(), [&](const Range& range) {
    return address >= range.start && address - range.start < range.size;
  });
}

namespace {

Result<std::vector<LoadedModule>> read_list(Kernel& kernel, Reader& reader,
                                            ModuleReader::Extent extent) {
  std::vector<LoadedModule> modules;
  const auto head = kernel.symbol("modules");
  if (!head) return modules;  // a kernel without CONFIG_MODULES
  VMSIGHT_TRY(const ModuleLayout layout, resolve(kernel));
  ModuleReader module_reader(reader, layout);
  bool whole = true;
  const bool round = for_each_entry(reader, *head, max_modules, layout.list, [&](GuestVirt module) {
    if (auto found = module_reader.read(module, extent)) modules.push_back(*std::move(found));
    whole = whole && reader.ok();
    reader.clear_fault();  // of this module; the list goes on
    return true;
  });
  reader.clear_fault();
  // Who asks for the places draws conclusions from what is not there.
  if (extent == ModuleReader::Extent::places && !(whole && round)) {
    return Error{.code = ErrorCode::bad_data,
                 .message = "read modules: their list changed while it was read"};
  }
  return modules;
}

}  // namespace

Result<std::vector<LoadedModule>> read_modules(Kernel& kernel, Reader& reader) {
  return read_list(kernel, reader, ModuleReader::Extent::all);
}

Result<std::vector<LoadedModule>> read_module_places(Kernel& kernel, Reader& reader) {
  return read_list(kernel, reader, ModuleReader::Extent::places);
}

Result<std::optional<std::vector<std::byte>>> read_module_btf(Kernel& kernel, Reader& reader,
                                                              std::string_view module) {
  using Blob = std::optional<std::vector<std::byte>>;
  const auto head = kernel.symbol("btf_modules");
  const auto link = kernel.member("btf_module", "list");
  const auto btf_of = kernel.member("btf_module", "btf");
  const auto data = kernel.member("btf", "data");
  const auto size = kernel.member("btf", "data_size");
  const auto name = kernel.member("btf", "name");
  if (!head || !link || !btf_of || !data || !size || !name) return Blob{};
  Blob blob;
  std::array<char, 64> buffer;
  for_each_entry(reader, *head, max_modules, *link, [&](GuestVirt entry) {
    const GuestVirt btf(reader.value(entry, *btf_of));
    if (reader.c_string(btf + name->offset, buffer) != module) return true;
    const std::uint64_t length = reader.value(btf, *size);
    if (length > max_module_btf) return false;
    blob.emplace(length);
    reader.copy(GuestVirt(reader.value(btf, *data)), *blob);
    return false;
  });
  if (const auto fault = reader.fault()) {
    reader.clear_fault();
    return Error{
        .code = ErrorCode::fault,
        .message = fmt::format("read the types of module {}: {} is not mapped", module, *fault),
        .address = fault->raw()};
  }
  return blob;
}

}  // namespace vmsight
