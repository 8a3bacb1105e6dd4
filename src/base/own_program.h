// Programs of ours that other programs of ours start, where they are.
#pragma once

#include <string>

#include "vmsight/result.h"

namespace vmsight {

/// The path of the program `name`: what `variable` of the environment says (an absolute path), else
/// beside our own program or library, in ../libexec/vmsight of that, or where it was to be installed.
/// not_found, with a hint, if it is not there.
Result<std::string> own_program(const std::string& name, const std::string& variable);

}  // namespace vmsight
