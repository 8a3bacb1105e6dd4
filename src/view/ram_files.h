// The files behind the shared RAM of a QEMU process, opened for reading.
#pragma once

#include "view/file_runs.h"
#include "vmsight/vm.h"

namespace vmsight {

/// The block whose mapping in the QEMU process holds this range, or nullptr.
const RamBlock* block_of(const Vm& vm, const RamRange& range);

/// Opens the file behind a block again, read-only, found among QEMU's descriptors by its
/// identity (names of memfds are not unique). not_found, permission, os.
Result<UniqueFd> open_backing(const Vm& vm, const RamBlock& block);

/// Every RAM range that is a shared file we may open. `missing` (if not null) gets the reason
/// for the first range that is not.
Result<FileRuns> open_ram_files(const Vm& vm, std::optional<Error>* missing);

}  // namespace vmsight
