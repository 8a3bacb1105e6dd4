#include "detect/integrity/kernel_places.h"

#include <algorithm>

#include <fmt/format.h>

namespace vmsight {
namespace {

constexpr std::uint64_t max_text = 256U << 20;

}  // namespace

Result<KernelPlaces> KernelPlaces::read(Kernel& kernel, Reader& reader) {
  KernelPlaces places;
  const auto start = kernel.symbol("_stext"), end = kernel.symbol("_etext");
  if (!start || !end || *end <= *start || *end - *start > max_text) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "check the kernel: the bounds of its text are not known"};
  }
  places.start_ = *start;
  places.end_ = *end;
  VMSIGHT_TRY(places.symbols_, kernel.symbols());
  reader.clear_fault();
  auto modules = read_module_places(kernel, reader);
  if (modules)
    places.modules_ = *std::move(modules);
  else
    places.modules_problem_ = modules.error().message;
  reader.clear_fault();
  return places;
}

const LoadedModule* KernelPlaces::module_at(GuestVirt address) const {
  const auto found = std::find_if(modules_.begin(), modules_.end(),
                                  [&](const LoadedModule& one) { return one.contains(address); });
  return found == modules_.end() ? nullptr : &*found;
}

std::span<const Symbol> KernelPlaces::symbols_at(GuestVirt address) const {
  return {std::ranges::lower_bound(symbols_, address, {}, &Symbol::address),
          std::ranges::upper_bound(symbols_, address, {}, &Symbol::address)};
}

std::string KernelPlaces::name(GuestVirt address) const {
  if (in_kernel_text(address)) {
    const auto after = std::ranges::upper_bound(symbols_, address, {}, &Symbol::address);
    if (after != symbols_.begin()) {
      const Symbol& symbol = symbols_[static_cast<std::size_t>(after - symbols_.begin()) - 1];
      const std::uint64_t offset = address - symbol.address;
      return offset == 0 ? std::string(symbol.name) : fmt::format("{}+{:#x}", symbol.name, offset);
    }
  }
  if (const LoadedModule* module = module_at(address)) {
    const auto exact = symbols_at(address);
    return exact.empty() ? fmt::format("{:#x} [{}]", address.raw(), module->name)
                         : fmt::format("{} [{}]", exact.front().name, module->name);
  }
  return fmt::format("{:#x}", address.raw());
}

}  // namespace vmsight
