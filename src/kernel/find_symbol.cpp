#include "kernel/find_symbol.h"

#include <fmt/format.h>

#include <algorithm>

namespace vmsight {

Result<GuestVirt> find_symbol(Kernel& kernel, std::string_view name) {
  if (const auto address = kernel.symbol(name)) return *address;
  VMSIGHT_TRY(const auto symbols, kernel.symbols());
  const std::size_t colon = name.find(':');
  const std::string_view module = name.substr(0, colon == name.npos ? 0 : colon);
  const std::string_view own = name.substr(colon == name.npos ? 0 : colon + 1);
  const auto found = std::find_if(symbols.begin(), symbols.end(), [&](const Symbol& symbol) {
    return symbol.name == own && (module.empty() || symbol.module == module);
  });
  if (found != symbols.end()) return found->address;
  return Error{.code = ErrorCode::not_found,
               .message = fmt::format("no symbol '{}' in the guest's kernel", name),
               .hint = fmt::format("`vmsight sym VM '*{}*'` lists names like it", own)};
}

}  // namespace vmsight
