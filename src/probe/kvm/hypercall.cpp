#include "probe/kvm/hypercall.h"

#include <cpuid.h>

#include <fmt/format.h>
#include <algorithm>

#include "host/option_list.h"
#include "kernel/guest_text.h"
#include "vmsight/reader.h"

namespace vmsight {
namespace {

// CPUID: VMX is bit 5 of ECX of leaf 1, SVM is bit 2 of ECX of leaf 0x80000001.
constexpr unsigned vmx_bit = 1u << 5, svm_bit = 1u << 2;
// enum x86_hypervisor_type, arch/x86/include/asm/hypervisor.h
constexpr std::uint32_t hyper_v = 2, xen_hvm = 4;

Error not_ours(std::string_view whose) {
  return {
      .code = ErrorCode::unsupported,
      .message = fmt::format(
          "probe user programs: the VM has hypercalls of {}, and KVM gives them to that", whose),
      .hint = "use --engine gdbstub"};
}

bool is_hyper_v(std::string_view property) {
  if (property.starts_with('+')) property.remove_prefix(1);
  return property.starts_with("hv-") || property.starts_with("hv_") ||
         property.starts_with("hyperv");
}

bool any_hyper_v(const OptionList& options) {
  return std::any_of(options.items().begin(), options.items().end(), [](const auto& item) {
    return is_hyper_v(item.first) && item.second != "off";
  });
}

/// `-global TYPE.hv-relaxed=on`
bool is_hyper_v_global(std::string_view text) {
  const std::size_t dot = text.find('.');
  return dot != text.npos && is_hyper_v(text.substr(dot + 1));
}

}  // namespace

Result<std::string> user_trap() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0 && (c & vmx_bit) != 0)
    return std::string("\x3e\x0f\x01\xc1");
  if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0 && (c & svm_bit) != 0)
    return std::string("\x3e\x0f\x01\xd9");
  return Error{.code = ErrorCode::unsupported,
               .message = "probe user programs: this host's CPU tells of no virtualisation",
               .hint = "use --engine gdbstub"};
}

Result<void> check_hypercalls(std::span<const std::string> arguments) {
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
    std::string_view option = arguments[i];
    if (!option.starts_with('-')) continue;
    option.remove_prefix(option.starts_with("--") ? 2 : 1);
    const std::string& value = arguments[i + 1];
    if (option == "global" && is_hyper_v_global(value)) return not_ours("Hyper-V");
    if (option != "cpu" && option != "accel") continue;
    const auto options = OptionList::parse(value, option == "cpu" ? "model" : "accel");
    if (!options) continue;
    if (option == "cpu" && any_hyper_v(*options)) return not_ours("Hyper-V");
    if (option == "accel" && options->find("xen-version")) return not_ours("Xen");
  }
  return {};
}

Result<void> check_hypercalls(Kernel& kernel, GuestMemory& memory) {
  const auto at = kernel.symbol("x86_hyper_type");
  if (!at) return {};
  Reader reader(memory, kernel.space());
  const std::uint32_t type = reader.u32(*at);
  if (!reader.ok() || type < hyper_v || type > xen_hvm) return {};
  return not_ours(type == hyper_v ? "Hyper-V" : "Xen");
}

}  // namespace vmsight
