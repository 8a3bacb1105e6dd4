#include "probe/system_calls.h"

#include <fmt/format.h>
#include <array>

#include "kernel/guest_text.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

constexpr std::size_t max_arguments = 6;
constexpr std::size_t max_text = 64;
constexpr std::array<const char*, max_arguments> registers{"di", "si", "dx", "r10", "r8", "r9"};
constexpr std::array<const char*, max_arguments> registers_32{"bx", "cx", "dx", "si", "di", "bp"};

struct Prefix {
  std::string_view text, abi;
};
// arch/x86/include/asm/syscall_wrapper.h. Programs of x32 call those of 64-bit programs where both mean the same;
// until Linux 5.7 the others were called __x32_compat_sys_*.
constexpr Prefix prefixes[] = {
    {"__x64_sys_", ""},           {"__ia32_sys_", "i386"},      {"__ia32_compat_sys_", "i386"},
    {"__x64_compat_sys_", "x32"}, {"__x32_compat_sys_", "x32"},
};

/// Programs and manuals know these by other names: arch/x86/entry/syscalls/syscall_64.tbl.
constexpr std::pair<std::string_view, std::string_view> other_names[] = {
    {"newfstat", "fstat"}, {"newlstat", "lstat"},      {"newstat", "stat"},
    {"newuname", "uname"}, {"sendfile64", "sendfile"}, {"umount", "umount2"},
};

/// Linux' 32-bit table: arch/x86/entry/syscalls/syscall_32.tbl.
constexpr std::pair<std::string_view, std::string_view> other_i386_names[] = {
    {"newfstat", "fstat"}, {"newlstat", "lstat"},    {"newstat", "stat"},     {"newuname", "uname"},
    {"umount", "umount2"}, {"oldumount", "umount"},  {"mmap_pgoff", "mmap2"}, {"ia32_mmap", "mmap"},
    {"llseek", "_llseek"}, {"select", "_newselect"},
};

std::string program_name(std::string_view name, std::string_view abi) {
  if (abi == "i386") {
    for (const auto& [kernels, programs] : other_i386_names) {
      if (kernels == name) return std::string(programs);
    }
    return std::string(name);
  }
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

std::optional<SystemCallFunction> system_call_of(std::string_view function) {
  for (const Prefix& prefix : prefixes) {
    if (!function.starts_with(prefix.text)) continue;
    const std::string_view name = function.substr(prefix.text.size());
    if (name.find('.') != name.npos) return std::nullopt;  // "__x64_sys_execve.cold"
    return SystemCallFunction{.name = name, .abi = prefix.abi};
  }
  return std::nullopt;
}

std::vector<std::string> system_call_patterns() {
  std::vector<std::string> patterns;
  for (const Prefix& prefix : prefixes) patterns.push_back(std::string(prefix.text) + "*");
  return patterns;
}

std::optional<SystemCall> read_system_call(Kernel& kernel, Reader& reader,
                                           std::string_view function) {
  const auto known = system_call_of(function);
  if (!known) return std::nullopt;
  const bool is_i386 = known->abi == "i386";
  SystemCall call{.name = std::string(known->name), .abi = known->abi};
  const bool is_known = call.name != "ni_syscall";  // which has no arguments of its own
  if (!is_known || (!read_description(kernel, reader, call) && !read_prototype(kernel, call))) {
    for (std::size_t i = 0; i < max_arguments; ++i) {
      call.arguments.push_back({.type = "unsigned long", .name = fmt::format("arg{}", i)});
    }
  }
  if (!known->abi.empty()) call.number.reset();
  if (!is_known) {
    const auto number = kernel.member("pt_regs", "orig_ax");
    if (number) call.number_offset = static_cast<std::int32_t>(number->offset);
  }
  call.name = program_name(call.name, known->abi);
  for (std::size_t i = 0; i < call.arguments.size(); ++i) {
    const auto member = kernel.member("pt_regs", is_i386 ? registers_32[i] : registers[i]);
    if (!member) return std::nullopt;
    call.arguments[i].offset = static_cast<std::int32_t>(member->offset);
  }
  return call;
}

}  // namespace vmsight
