#include "detect/integrity/integrity_check.h"

#include <fmt/format.h>

namespace vmsight {

extern const IntegrityCheck syscall_table_check, idt_check, modules_check, processes_check,
    kernel_text_check, module_text_check, ftrace_sites_check, patch_sites_check,
    executable_pages_check, lsm_hooks_check, ftrace_handlers_check, kprobes_check,
    function_pointers_check, credentials_check, helpers_check, deleted_executables_check,
    packet_sockets_check, own_traps_check;

namespace {

const std::vector<IntegrityCheck>& table() {
  static const std::vector<IntegrityCheck> checks = {
      syscall_table_check,     idt_check,         modules_check,         processes_check,
      kernel_text_check,       module_text_check, ftrace_sites_check,    patch_sites_check,
      executable_pages_check,  lsm_hooks_check,   ftrace_handlers_check, kprobes_check,
      function_pointers_check, credentials_check, helpers_check,         deleted_executables_check,
      packet_sockets_check,    own_traps_check};
  return checks;
}

}  // namespace

std::span<const IntegrityCheck> integrity_check_table() { return table(); }

std::span<const CheckInfo> integrity_checks() {
  static const std::vector<CheckInfo> infos = [] {
    std::vector<CheckInfo> all;
    for (const IntegrityCheck& check : table()) all.push_back(check.info);
    return all;
  }();
  return infos;
}

Error lacks(std::string_view what) {
  return {.code = ErrorCode::unsupported, .message = fmt::format("this kernel has no {}", what)};
}

Error unreadable(std::string_view what) {
  return {.code = ErrorCode::fault, .message = fmt::format("{} is not readable", what)};
}

}  // namespace vmsight
