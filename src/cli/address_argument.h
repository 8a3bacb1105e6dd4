// Addresses on the command line: numbers, symbols, symbols with an offset.
#pragma once

#include <optional>
#include <string_view>

#include "vmsight/kernel.h"
#include "vmsight/result.h"

namespace vmsight {

/// "0x1f00", "4096"; the first whole unsigned number, nullopt if the text is none.
std::optional<std::uint64_t> parse_unsigned(std::string_view text);
/// "4096", "0x1000", "64K", "2M", "1G": bytes.
Result<std::uint64_t> parse_size(std::string_view text);

/// "0xffffffff81000000", "ffffffff81000000", "jiffies", "init_task+0x10". not_found if there is no such symbol.
Result<GuestVirt> parse_virtual(Kernel& kernel, std::string_view text);

}  // namespace vmsight
