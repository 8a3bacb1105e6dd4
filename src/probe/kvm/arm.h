// Putting traps into a guest's code and taking them out again, many under one pause.
//
//   in place    site: 3e 3e 3e 0f 08    one instruction: nobody can ever stand within it
//   trampoline  site: jmp T             for returns; see trampoline.h
//
// What was there is recorded first. Should we end, a process of ours puts it back within a second
// (the trap only makes the guest slower meanwhile); should that be killed too, recovery does.
#pragma once

#include <list>
#include <map>
#include <set>
#include <span>

#include "probe/ftrace_site.h"
#include "probe/kvm/trampoline.h"
#include "probe/patch/code_patch.h"
#include "vmsight/probe.h"

namespace vmsight {

/// A function's place for a trap.
struct TrapSite {
  std::string name;  // "vfs_read", for messages
  GuestVirt function;
  GuestVirt address;              // of the NOP
  std::string nop;                // what is there when nobody looks
  std::string code;               // what is there when armed
  GuestVirt trampoline{};         // 0: none
  std::string trampoline_before;  // what was there when it was found
  bool has_trampoline() const { return trampoline.raw() != 0; }
};

class Armory {
 public:
  /// All must outlive it; `memory` is used by nobody else.
  static Result<std::unique_ptr<Armory>> open(const Vm& vm, Kernel& kernel, GuestMemory& memory,
                                              std::chrono::milliseconds max_halt);
  /// Puts everything back.
  ~Armory();

  /// Where the trap for this function goes; changes nothing. unsupported with the reason: no place,
  /// in use by the guest itself or by somebody else.
  Result<TrapSite> find(const ProbeSite& site);
  /// Makes it one with a trampoline; changes nothing. unsupported for functions with arguments on
  /// the stack, or if there is no room.
  Result<void> add_trampoline(const ProbeSite& site, TrapSite& trap);

  struct Step {
    const TrapSite* trap;
    std::string now;  // what is there at the moment: the NOP, or the trap that gets a trampoline
  };
  /// Traps in pages of files, for which it only keeps and undoes the patches.
  struct FilePatches {
    std::span<const CodePatch> fresh;
    std::span<const CodePatch> there;  // written already: only to be undone
    PatchCheck check;                  // while the guest stands
  };
  /// All or none.
  Result<void> arm(std::span<const Step> steps, const FilePatches& files = {});
  Result<void> disarm(std::span<const TrapSite* const> traps,
                      std::span<const CodePatch> files = {});
  /// The guest has given these pages up: what is there now is not ours to undo.
  void forget(std::span<const CodePatch> files);
  void forget(std::span<const TrapSite* const> traps);

  /// Whether the bytes are still ours.
  Result<bool> is_armed(const TrapSite& trap);

 private:
  struct Batch {
    std::uint64_t recorded = 0;  // by the patcher
    std::vector<CodePatch> patches;
    std::set<HostVirt> armed;  // where each trap begins
  };
  Armory(const Vm& vm, Kernel& kernel, GuestMemory& memory, RamWriter ram,
         std::chrono::milliseconds max_halt)
      : vm_(vm),
        kernel_(kernel),
        memory_(memory),
        ram_(std::move(ram)),
        patcher_(vm, max_halt),
        reader_(memory, kernel.space()),
        space_(kernel) {}
  Result<void> look_anew();
  Result<void> release(std::span<const HostVirt> traps);
  Result<void> add_patches(std::vector<CodePatch>& patches, GuestVirt at, const std::string& before,
                           const std::string& after);

  const Vm& vm_;
  Kernel& kernel_;
  GuestMemory& memory_;
  RamWriter ram_;  // only read here
  CodePatcher patcher_;
  Reader reader_;
  TrampolineSpace space_;
  FtraceSites sites_;
  std::map<GuestVirt, HostVirt> places_;  // of armed traps in the kernel
  std::list<Batch> batches_;
};

/// The error that says why an engine does not probe this site.
Error refuse_site(const ProbeSite& site, std::string_view why,
                  std::string hint = "use --engine gdbstub");

/// unsupported if a call of this function passes arguments on the stack, or may do so.
Result<void> check_no_stack_arguments(Kernel& kernel, const ProbeSite& site);

}  // namespace vmsight
