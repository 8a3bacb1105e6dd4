#include "kernel/symbol_table.h"

#include "base/clock.h"
#include "kernel/scan.h"

namespace vmsight {
namespace {

// The tables follow the rest of the read-only data: their end was met 4 to 7 MiB behind its start.
// Most kernels need the small window; a kernel with more of everything the large one.
constexpr std::uint64_t search_windows[] = {8U << 20, 40U << 20};
constexpr unsigned max_token_tables = 8;  // in a window; a guest can forge any number

Result<std::vector<std::byte>> read_bytes(GuestMemory& memory, GuestPhys from, std::uint64_t size) {
  if (contiguous_ram(memory.ram(), from, size) < size) {
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("read {:#x} bytes at {}: not RAM", size, from)};
  }
  std::vector<std::byte> bytes(size);
  VMSIGHT_TRY_VOID(memory.scan(from, bytes));
  return bytes;
}

}  // namespace

Result<KallsymsAt> read_kallsyms(GuestMemory& memory, GuestPhys start, std::uint64_t size) {
  VMSIGHT_TRY(std::vector<std::byte> window,
              read_bytes(memory, start, contiguous_ram(memory.ram(), start, size)));
  const std::span<const std::byte> bytes(window);
  Error last{.code = ErrorCode::not_found, .message = "there is no kallsyms token table"};
  std::size_t from = 0;
  for (unsigned attempt = 0; attempt < max_token_tables; ++attempt) {
    const auto tokens = find_token_table(bytes, from);
    if (!tokens) break;
    auto found = locate_kallsyms(bytes, *tokens);
    if (found) {
      const auto tables = bytes.subspan(found->start, found->layout.size);
      VMSIGHT_TRY(Kallsyms kallsyms, Kallsyms::load({tables.begin(), tables.end()}, found->layout));
      return KallsymsAt{start + found->start, std::move(kallsyms)};
    }
    last = found.error();
    from = tokens->index;
  }
  return last;
}

Result<Kallsyms> SymbolTable::load_remembered() {
  const KernelMemo::Tables& known = *memo_.kallsyms;
  const GuestPhys start = rodata_ + static_cast<std::uint64_t>(known.from_rodata);
  VMSIGHT_TRY(auto bytes, read_bytes(memory_, start, known.layout.size));
  return Kallsyms::load(std::move(bytes), known.layout);
}

Result<Kallsyms> SymbolTable::search() {
  Error last;
  for (const std::uint64_t size : search_windows) {
    auto found = read_kallsyms(memory_, rodata_, size);
    if (found) {
      memo_.kallsyms = {static_cast<std::int64_t>(found->start - rodata_), found->tables.layout()};
      memo_.changed = true;
      return std::move(found->tables);
    }
    last = found.error();
  }
  return last;
}

Result<const Kallsyms*> SymbolTable::tables() {
  if (kallsyms_) return &*kallsyms_;
  const Stopwatch watch;
  auto loaded = memo_.kallsyms ? load_remembered() : search();
  load_ns_ += watch.elapsed_ns();
  if (!loaded) return loaded.error();
  kallsyms_ = *std::move(loaded);
  return &*kallsyms_;
}

Result<std::optional<SymbolValue>> SymbolTable::find(std::string_view name) {
  if (const auto* known = memo_.symbols.find(name)) return *known;
  VMSIGHT_TRY(const Kallsyms* kallsyms, tables());
  const auto found = kallsyms->find(name);
  memo_.symbols.set(name, found);
  memo_.changed = true;
  return found;
}

Result<SymbolValue> SymbolTable::require(std::string_view name) {
  VMSIGHT_TRY(const auto found, find(name));
  if (!found) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("the kernel has no symbol {}", name)};
  }
  return *found;
}

}  // namespace vmsight
