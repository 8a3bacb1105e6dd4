#include "probe/system_calls.h"

#include <fmt/format.h>
#include <array>

#include "kernel/architecture.h"
#include "kernel/guest_text.h"
#include "kernel/type_print.h"

namespace vmsight {
namespace {

constexpr std::size_t max_arguments = 6;
constexpr std::size_t max_text = 64;
std::string program_name(const SystemCallWrappers& wrappers, std::string_view name) {
  for (const auto& [kernels, programs] : wrappers.other_names) {
    if (kernels == name) return std::string(programs);
  }
  return std::string(name);
}

/// nullptr for a function that is no wrapper, and for what the compiler cut out of one.
const SystemCallWrappers* wrappers_of(const Architecture& architecture, std::string_view function) {
  for (const SystemCallWrappers& wrappers : architecture.system_calls) {
    if (!function.starts_with(wrappers.prefix)) continue;
    // "__x64_sys_execve.cold"
    return function.find('.', wrappers.prefix.size()) == function.npos ? &wrappers : nullptr;
  }
  return nullptr;
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

std::vector<std::string> system_call_patterns(const Kernel& kernel) {
  std::vector<std::string> patterns;
  for (const SystemCallWrappers& wrappers : kernel.space().architecture().system_calls)
    patterns.push_back(std::string(wrappers.prefix) + "*");
  return patterns;
}

std::optional<SystemCall> read_system_call(Kernel& kernel, Reader& reader,
                                           std::string_view function) {
  const Architecture& architecture = kernel.space().architecture();
  const SystemCallWrappers* wrappers = wrappers_of(architecture, function);
  if (wrappers == nullptr) return std::nullopt;
  SystemCall call{.name = std::string(function.substr(wrappers->prefix.size())),
                  .abi = wrappers->abi};
  const bool is_known = call.name != "ni_syscall";  // which has no arguments of its own
  if (!is_known || (!read_description(kernel, reader, call) && !read_prototype(kernel, call))) {
    for (std::size_t i = 0; i < max_arguments; ++i) {
      call.arguments.push_back({.type = "unsigned long", .name = fmt::format("arg{}", i)});
    }
  }
  if (!wrappers->abi.empty()) call.number.reset();
  if (!is_known) {
    const auto number = kernel.member("pt_regs", architecture.system_call_number);
    if (number) call.number_offset = static_cast<std::int32_t>(number->offset);
  }
  call.name = program_name(*wrappers, call.name);
  for (std::size_t i = 0; i < call.arguments.size() && i < wrappers->arguments.size(); ++i) {
    const auto member = kernel.member("pt_regs", wrappers->arguments[i]);
    if (!member) return std::nullopt;
    call.arguments[i].offset = static_cast<std::int32_t>(member->offset);
  }
  return call;
}

}  // namespace vmsight
