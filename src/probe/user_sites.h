// Finding sites in the guest's user programs and libraries: by a path as the guest's processes see
// it, through the processes that map the file.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmsight/probe.h"

namespace vmsight {

struct UserSiteOptions {
  std::optional<std::int32_t> pid;             // in this process only
  std::span<const std::string> symbols_files;  // of the host's: the first of the same build counts
};

/// `reader` reads the kernel's memory, of a view that has just begun. not_found if no process maps
/// the file, or it has no such function; unsupported, with --symbols as hint, if the part of the
/// file that would tell is not in the guest's memory.
Result<std::vector<ProbeSite>> find_user_sites(Kernel& kernel, Reader& reader, const Site& site,
                                               const UserSiteOptions& options);

/// The processes that have these sites by now, and the inodes of their files if the guest has read them anew;
/// sites for one process only are left as they are.
Result<void> find_places_again(Kernel& kernel, Reader& reader, std::span<ProbeSite* const> sites);

}  // namespace vmsight
