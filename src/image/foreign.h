// Files that people take for memory images, and that are none or are not read.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string_view>

#include "vmsight/result.h"

namespace vmsight {

/// What a file that begins so is, and what to do with it; nullopt if it is not in the table.
std::optional<Error> foreign_image(std::string_view start);

}  // namespace vmsight
