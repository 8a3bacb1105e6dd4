// The texts of --help.
#pragma once

#include <string>

#include "cli/verb.h"

namespace vmsight {

/// All verbs by group.
std::string overview();
/// One verb: synopsis, arguments and options by group, examples.
std::string help_of(const VerbInfo& verb, const CLI::App& app);
/// The same of a verb that is not run.
std::string help_of(const VerbInfo& verb);

}  // namespace vmsight
