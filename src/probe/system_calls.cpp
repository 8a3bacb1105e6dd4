#include "probe/system_calls.h"

#include <fmt/format.h>
#include <array>

#include "kernel/escape.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

constexpr std::size_t max_arguments = 6;
constexpr std::size_t max_text = 64;
constexpr std::array<const char*, max_arguments> registers{"di", "si", "dx", "r10", "r8", "r9"};
constexpr std::array<const char*, max_arguments> registers_32{"bx", "cx", "dx", "si", "di", "bp"};

struct Prefix {
  std::string_view text;
  bool is_32bit;
};
constexpr Prefix prefixes[] = {
    {"__x64_sys_", false},
    {"__ia32_sys_", true},
    {"__ia32_compat_sys_", true},
};

/// Programs and manuals know these by other names: arch/x86/entry/syscalls/syscall_64.tbl.
constexpr std::pair<std::string_view, std::string_view> other_names[] = {
    {"newfstat", "fstat"}, {"newlstat", "lstat"},      {"newstat", "stat"},
    {"newuname", "uname"}, {"sendfile64", "sendfile"}, {"umount", "umount2"},
};

std::string program_name(std::string_view name) {
  for (const auto& [kernels, programs] : other_names) {
    if (kernels == name) return std::string(programs);
  }
  return std::string(name);
}

std::string text_at(Reader& reader, GuestVirt at) {
  std::array<char, max_text> buffer;
  return escape_bytes(reader.c_string(at, buffer));
}

/// {name, syscall_nr, nb_args, types, args} of include/trace/syscall.h.
bool read_description(Kernel& kernel, Reader& reader, SystemCall& call) {
  const auto at = kernel.symbol("__syscall_meta__" + call.name);
  const auto number = kernel.member("syscall_metadata", "syscall_nr");
  const auto count = kernel.member("syscall_metadata", "nb_args");
  const auto types = kernel.member("syscall_metadata", "types");
  const auto names = kernel.member("syscall_metadata", "args");
  if (!at || !number || !count || !types || !names) return false;
  reader.clear_fault();
  const auto has = static_cast<std::size_t>(reader.value(*at, *count) & 0xffffffff);
  const auto type_list = reader.pointer(*at + types->offset);
  const auto name_list = reader.pointer(*at + names->offset);
  SystemCall found = call;
  found.number = static_cast<std::int32_t>(reader.u32(*at + number->offset));
  for (std::size_t i = 0; i < has && i < max_arguments; ++i) {
    found.arguments.push_back({.type = text_at(reader, reader.pointer(type_list + i * 8)),
                               .name = text_at(reader, reader.pointer(name_list + i * 8))});
  }
  const bool readable = reader.ok() && has <= max_arguments;
  reader.clear_fault();
  if (readable) call = std::move(found);
  return readable;
}

/// The function that the wrapper calls, where the compiler has not swallowed it.
bool read_prototype(Kernel& kernel, SystemCall& call) {
  const auto btf = kernel.btf();
  if (!btf) return false;
  for (const char* prefix : {"__do_sys_", "__se_sys_", "ksys_"}) {
    const auto function = (*btf)->find(prefix + call.name, BtfKind::function);
    if (!function) continue;
    const BtfType prototype = (*btf)->type((*btf)->type(*function).target);
    if (prototype.kind != BtfKind::function_proto || prototype.count > max_arguments) continue;
    for (std::uint32_t i = 0; i < prototype.count; ++i) {
      const BtfParameter parameter = (*btf)->parameter_at(prototype, i);
      call.arguments.push_back(
          {.type = type_name(**btf, parameter.type), .name = escape_bytes(parameter.name)});
    }
    return true;
  }
  return false;
}

}  // namespace

std::optional<std::string_view> system_call_of(std::string_view function, bool* is_32bit) {
  for (const Prefix& prefix : prefixes) {
    if (!function.starts_with(prefix.text)) continue;
    if (is_32bit != nullptr) *is_32bit = prefix.is_32bit;
    return function.substr(prefix.text.size());
  }
  return std::nullopt;
}

std::optional<SystemCall> read_system_call(Kernel& kernel, Reader& reader,
                                           std::string_view function) {
  bool is_32bit = false;
  const auto name = system_call_of(function, &is_32bit);
  if (!name) return std::nullopt;
  SystemCall call;
  call.name = *name;
  if (!read_description(kernel, reader, call) && !read_prototype(kernel, call)) {
    for (std::size_t i = 0; i < max_arguments; ++i) {
      call.arguments.push_back({.type = "unsigned long", .name = fmt::format("arg{}", i)});
    }
  }
  if (is_32bit)
    call.number.reset();
  else
    call.name = program_name(call.name);
  for (std::size_t i = 0; i < call.arguments.size(); ++i) {
    const auto member = kernel.member("pt_regs", is_32bit ? registers_32[i] : registers[i]);
    if (!member) return std::nullopt;
    call.arguments[i].offset = static_cast<std::int32_t>(member->offset);
  }
  return call;
}

}  // namespace vmsight
