// Bytes of guest code that we replace while the guest stands, and put back.
//
//   record on disk -> halt -> all bytes as expected? -> write -> resume   apply
//                     halt -> bytes still ours? -> write -> resume        revert
//
// Each patch replaces one instruction, or code that nobody executes, by one instruction.//
// For guests under KVM: an emulator that has translated the code already does not see the change.
#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/os.h"
#include "vm/journal.h"
#include "vmsight/address.h"
#include "vmsight/halt.h"
#include "vmsight/vm.h"

namespace vmsight {

/// Guest RAM for reading and writing, through QEMU's own mapping of it. Guest and QEMU see a write
/// at once, but not as one: nobody may execute the bytes meanwhile.
class RamWriter {
 public:
  /// permission if the rights are missing.
  static Result<RamWriter> open(pid_t pid);
  Result<void> read(HostVirt from, std::span<std::byte> into) const;
  Result<void> write(HostVirt to, std::span<const std::byte> bytes) const;

 private:
  UniqueFd memory_;
};

struct CodePatch {
  static constexpr std::size_t max_size = 16;
  GuestVirt
      instruction;    // where the instruction begins that is replaced; 0: it has no address of its
                      // own, as in a page that processes share, and nobody can stand within it
  GuestVirt address;  // of the bytes: the same, or behind if it crosses a page
  GuestPhys at;
  HostVirt host;
  std::string before, after;  // of the same length; within one page
};

/// What else must be true before anything is written; asked while the guest stands.
using PatchCheck = std::function<Result<void>()>;

/// Replaces all or nothing. bad_data, changing nothing, if bytes are not as expected or a vCPU
/// stands within one of the instructions; then trying again may help. Or what `check` says.
Result<void> apply_patches(const Vm& vm, const RamWriter& ram, std::span<const CodePatch> patches,
                           const PatchCheck& check = {});
/// Puts back what is still ours. What the guest has overwritten stays as it is.
Result<void> revert_patches(const Vm& vm, const RamWriter& ram, std::span<const CodePatch> patches);

/// The change that undo_change() reverts, should we be killed: kind "probes".
Change record_of(std::span<const CodePatch> patches);
/// nullopt if it is none.
std::optional<std::vector<CodePatch>> parse_patches(const nlohmann::json& payload);

}  // namespace vmsight
