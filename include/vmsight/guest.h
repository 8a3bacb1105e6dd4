// attach(): from a name to a guest whose memory can be read and whose kernel is known.
//
//   VMSIGHT_TRY(Guest guest, attach("web1", {}));
//   VMSIGHT_TRY(const auto reader, state_reader_of(guest));
//
// The steps can be taken one by one: open_guest(), open_memory(), enter_sandbox() if one is wanted,
// find_kernel_of(). None of them disturbs the guest, but what a killed vmsight left in the VM is undone first.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmsight/image.h"
#include "vmsight/kernel.h"
#include "vmsight/memory.h"
#include "vmsight/state.h"
#include "vmsight/view.h"
#include "vmsight/vm.h"

namespace VMSIGHT_PUBLIC vmsight {

/// Has its user's rights when we no longer do, and what it does for the program; defined in src/attach.
class Front;
class FrontService;

struct AttachOptions {
  std::string technique = "auto";  // as open_view() takes it
  TechniqueWish wish;              // what "auto" must give
  /// Only states are read, by state_reader_of(): one moment, if that is wished for, may be proven from a guest
  /// that runs.
  bool proves_states = false;
  std::optional<std::string> kernel;  // an index or the start of a build id
  bool all_kernels = false;     // list every kernel in memory, though the running one is known
  bool sandbox = false;         // attach() enters it, for the whole process: see enter_sandbox()
  ImageOptions image;           // how an image is opened
  std::string cache_directory;  // of what was learnt about kernels; "" = nothing is kept
  std::function<void(std::string_view)> progress;  // long work says what it does
  std::function<void(const VmInfo&)> found;        // gets the VM before anything is done to it
  std::function<void(const Recovery&)> recovered;  // gets what a killed vmsight had left in the VM
  std::shared_ptr<FrontService> service{};         // what needs our rights after enter_sandbox()
};

/// A VM or an image: exactly one of `vm` and `image` is set. May be moved.
struct Guest {
  Guest() = default;
  Guest(Guest&&) noexcept = default;
  /// Detaches from the guest before: kernel, then memory, then VM.
  Guest& operator=(Guest&& other) noexcept;

  std::string name;  // the VM's, or the path of the image
  std::unique_ptr<Vm> vm;
  std::string
      identity;  // of the VM: what tells it from every other that this host ever ran; "" = not known
  std::shared_ptr<ImageFile> image_file;  // open, and perhaps not looked at yet
  std::optional<Image> image;             // what is in it
  std::unique_ptr<GuestMemory> memory;    // after open_memory()
  std::unique_ptr<GuestMemory> live;      // for proofs; views of `memory` are taken where they fail
  bool only_proofs = false;  // ... there are none: `memory` is what proofs are made from
  std::vector<TechniqueStatus> passed_over;  // techniques that "auto" did not take, and why
  std::shared_ptr<Front> front;              // after enter_sandbox(), if there is one
  std::unique_ptr<Kernel> kernel;            // after find_kernel_of()

  const RamMap& ram() const { return vm ? vm->ram() : image->ram; }
  /// Control registers of the vCPUs, where they are to be had; asks the VM's monitor.
  std::vector<std::uint64_t> cr3() const;
  /// A read that failed because the VM ended says so, whatever the failing call reported.
  Error explain(Error error) const;
};

/// Opens what `spec` names: a VM as find_vm() finds it, or the path of an image. With options.sandbox an image is not
/// looked at before enter_sandbox() was done, here. If a killed vmsight left that VM changed, the change is undone first
/// and passed to options.recovered. Errors of find_vm(), open_vm(), open_image(), enter_sandbox().
Result<Guest> open_guest(const std::string& spec, const AttachOptions& options);

/// Chooses a technique. unsupported, with the reason, if the one asked for cannot be had.
Result<void> open_memory(Guest& guest, const AttachOptions& options);

/// Gives up every right that reading this guest does not need: another user where we are root, no files, no network,
/// no programs. It holds for the whole process and for good, so it is for programs that look at one guest; to be
/// called after open_memory(), before anything of the guest is looked at, and while the process has one thread.
/// Nothing is read from standard input, output and error any more. A small process that is forked before, the front, keeps
/// the rights to open files of the cache and to ask the monitor for registers: later calls ask it. A technique that holds
/// a connection to QEMU, or borrows threads of it, is opened anew by the front, which reads for us.
///
/// A process that reads memory by itself (not by a mapping) is ended some seconds after QEMU has, so that it reads nobody
/// else's. Nothing is done if it was done before, as by open_guest() of an image.
///
/// The value is "" if the process is in the sandbox. Else nothing is done, and it says why: the host's kernel has no
/// filters of system calls, or the technique halts the guest while it is read by an interface of QEMU, page by page, which
/// through another process would take longer. os, unsupported; errors of open_view(): after one the guest is good for
/// nothing but to be destroyed.
Result<std::string> enter_sandbox(Guest& guest, const AttachOptions& options);

/// Finds the kernel that runs, again if there was one: a guest that rebooted has another. The
/// monitor is asked for registers only if memory alone does not tell it. Errors of find_kernel().
Result<void> find_kernel_of(Guest& guest, const AttachOptions& options);

/// Reads states as attaching was asked to: one moment, proven or of a guest that was halted, or each record by
/// itself. Uses `guest` for as long as it lives. Errors of StateReader::create().
Result<std::unique_ptr<StateReader>> state_reader_of(Guest& guest);

/// open_guest(), open_memory(), enter_sandbox() if it is asked for, and find_kernel_of(), in this order. unsupported if
/// the sandbox cannot be had.
Result<Guest> attach(const std::string& spec, const AttachOptions& options = {});

/// $XDG_CACHE_HOME/vmsight, or ~/.cache/vmsight; "" if there is no home.
std::string default_cache_directory();

}  // namespace vmsight
