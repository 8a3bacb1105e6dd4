// Bytes of guest code that we replace while the guest is halted, and put back.
//
//   record on disk -> halt -> all bytes as expected? -> write -> resume   apply
//                     halt -> bytes still ours? -> write -> resume        revert
//
// A guard does all of it (undo/guard.h): what is written is never left half done, and is put back
// when we are gone. Each patch replaces one instruction, or code that nobody executes, by one
// instruction. For guests under KVM: an emulator that has translated the code already does not see
// the change.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/os.h"
#include "undo/guard.h"
#include "undo/journal.h"
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

/// What else must be true before anything is written; asked while the guest is halted.
using PatchCheck = std::function<Result<void>()>;

/// Changes the code of one VM. Its guard is started by the first change.
class CodePatcher {
 public:
  /// `vm` must outlive it.
  explicit CodePatcher(const Vm& vm, std::chrono::milliseconds max_halt = default_max_halt)
      : vm_(vm), max_halt_(max_halt) {}

  /// Before patches are written: from now on they are put back when we are gone. The value names
  /// them for forget().
  Result<std::uint64_t> record(std::span<const CodePatch> patches);
  /// They are not in the guest any more.
  Result<void> forget(std::uint64_t recorded);

  /// Replaces all or nothing. bad_data, changing nothing, if bytes are not as expected or a vCPU
  /// stands within one of the instructions; then trying again may help. Or what `check` says.
  Result<void> apply(std::span<const CodePatch> patches, const PatchCheck& check = {});
  /// Puts back what is still ours. What the guest has overwritten stays as it is.
  Result<void> revert(std::span<const CodePatch> patches);

 private:
  Result<Guard*> guard();
  Result<void> change(GuardRequest how, std::span<const CodePatch> patches,
                      const PatchCheck& check);

  const Vm& vm_;
  std::chrono::milliseconds max_halt_;
  std::unique_ptr<Guard> guard_;
};

/// For guards: `write` or `revert` of a list of patches. The guest must be halted.
Result<void> change_code(pid_t vm, GuardRequest how, const nlohmann::json& payload);

/// Patches in the code of a guest, for should we be killed.
extern const ChangeKind probes_change;
Change record_of(std::span<const CodePatch> patches);
/// nullopt if it is none.
std::optional<std::vector<CodePatch>> parse_patches(const nlohmann::json& payload);

}  // namespace vmsight
