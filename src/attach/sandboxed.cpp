#include <fmt/format.h>

#include "attach/front.h"
#include "sandbox/call_filter.h"
#include "sandbox/sandbox.h"
#include "vmsight/guest.h"

namespace vmsight {
namespace {

/// What all memories of the guest need. Reading two processes is more than a sandbox allows.
Result<ReadRights> rights_of(Guest& guest) {
  VMSIGHT_TRY(ReadRights rights, guest.memory->prepare());
  if (!guest.live) return rights;
  VMSIGHT_TRY(const ReadRights live, guest.live->prepare());
  const bool agree = rights.process == 0 || live.process == 0 || rights.process == live.process;
  rights.suffice = rights.suffice && live.suffice && agree;
  if (rights.process == 0) rights.process = live.process;
  return rights;
}

}  // namespace

Result<std::string> enter_sandbox(Guest& guest, const AttachOptions& options) {
  if (!has_system_call_filters()) return std::string("the kernel has no seccomp filters");
  VMSIGHT_TRY(const ReadRights rights, rights_of(guest));
  if (!rights.suffice)
    return fmt::format("{} needs more rights than a sandbox leaves", guest.memory->technique());
  CacheDirectory cache(options.cache_directory);
  VMSIGHT_TRY(guest.front,
              Front::start({.cache = options.cache_directory.empty() ? nullptr : &cache,
                            .vm = guest.vm.get(),
                            .identity = guest.identity,
                            .ends_reader = rights.process != 0}));
  auto entered = enter_sandbox(SandboxRights{.reads = rights.process});
  if (entered) return std::string();
  entered.error().hint = "--no-sandbox goes on without";
  return std::move(entered).error();
}

}  // namespace vmsight
