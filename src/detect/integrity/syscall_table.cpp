// syscall-table: entries of the tables by which system calls are dispatched. Kernels since 6.6 (and
// those with the fix backported) call a compiled switch instead, whose code kernel-text looks at;
// the table is still there, and nothing changes it.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_entries = 4096;

struct TableName {
  std::string_view symbol;
  bool required;
};
constexpr TableName system_call_tables[] = {
    {"sys_call_table", true}, {"ia32_sys_call_table", false}, {"x32_sys_call_table", false}};

/// What Architecture::system_calls does not list: wrappers for callers of another width.
constexpr std::string_view more_prefixes[] = {"__x64_sys_",         "__ia32_sys_",
                                              "__ia32_compat_sys_", "__x64_compat_sys_",
                                              "__x32_compat_sys_",  "compat_sys_"};

bool is_wrapper(std::string_view name) {
  if (name == "sys_ni_syscall") return true;
  return std::ranges::any_of(more_prefixes,
                             [&](std::string_view prefix) { return name.starts_with(prefix); });
}

/// The kernel's own description of number `i`: "sys_execve"; "" if there is none.
class Descriptions {
 public:
  explicit Descriptions(Look& look) : look_(look) {
    const auto at = look.kernel.symbol("syscalls_metadata");
    const auto name = look.kernel.member("syscall_metadata", "name");
    if (!at || !name) return;
    name_ = name->offset;
    array_ = look.reader.pointer(*at);
    look.reader.clear_fault();
  }
  std::string name(std::uint64_t number) {
    if (array_ == GuestVirt()) return "";
    std::array<char, 80> buffer;
    const GuestVirt one = look_.reader.pointer(array_ + number * 8);
    std::string text;
    if (one != GuestVirt()) text = look_.reader.c_string(look_.reader.pointer(one + name_), buffer);
    const bool readable = look_.reader.ok();
    look_.reader.clear_fault();
    return readable ? text : "";
  }

 private:
  Look& look_;
  GuestVirt array_{};
  std::uint32_t name_ = 0;
};

void check_entry(Look& look, std::string_view table, std::uint64_t i, GuestVirt at,
                 GuestVirt target, const std::string& described) {
  const std::string object = fmt::format("{}[{}]", table, i);
  const auto names = look.places.symbols_at(target);
  const auto is_known = [&](const Symbol& symbol) { return is_wrapper(symbol.name); };
  if (!look.places.in_kernel_text(target)) {
    return look.find({.what = fmt::format("{} points to {}, outside the kernel's text", object,
                                          look.places.name(target)),
                      .object = object,
                      .sources = {std::string(table)},
                      .sureness = Sureness::certain,
                      .address = at});
  }
  if (std::ranges::none_of(names, is_known)) {
    return look.find({.what = fmt::format("{} points to {}, which is no system call", object,
                                          look.places.name(target)),
                      .object = object,
                      .sources = {std::string(table)},
                      .sureness = Sureness::certain,
                      .address = at});
  }
  if (described.empty()) return;
  const auto is_described = [&](const Symbol& symbol) {
    return symbol.name.ends_with(described);  // "__x64_" + "sys_execve"
  };
  if (std::ranges::any_of(names, is_described)) return;
  look.find({.what = fmt::format("{} points to {}; the kernel's description of that number is {}",
                                 object, look.places.name(target), described),
             .object = object,
             .sources = {std::string(table), "syscalls_metadata"},
             .sureness = Sureness::likely,
             .address = at});
}

Result<void> check_table(Look& look, std::string_view table, GuestVirt start, std::uint64_t count) {
  std::vector<std::uint64_t> entries(count);
  for (std::uint64_t i = 0; i < count; ++i) entries[i] = look.reader.u64(start + i * 8);
  if (!look.reader.ok()) return unreadable(table);
  while (!entries.empty() && entries.back() == 0) entries.pop_back();  // alignment of what follows
  Descriptions descriptions(look);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const bool native = table == "sys_call_table";
    check_entry(look, table, i, start + i * 8, GuestVirt(entries[i]),
                native ? descriptions.name(i) : "");
  }
  look.looked_at += entries.size();
  return {};
}

Result<void> check_syscall_tables(Look& look) {
  for (const TableName& table : system_call_tables) {
    const auto start = look.kernel.symbol(table.symbol);
    const auto size = look.kernel.symbol_size(table.symbol);
    if (!start && !table.required) continue;
    if (!start) return lacks(table.symbol);
    if (!size || *size < 8 || *size > max_entries * 8) {
      return Error{ErrorCode::unsupported,
                   fmt::format("the size of {} is not known", table.symbol)};
    }
    VMSIGHT_TRY_VOID(check_table(look, table.symbol, *start, *size / 8));
  }
  return {};
}

}  // namespace

extern const IntegrityCheck syscall_table_check{
    .info = {.name = "syscall-table",
             .what = "entries of the tables of system calls are the kernel's own wrappers",
             .family = "kernel"},
    .run = check_syscall_tables,
};

}  // namespace vmsight
