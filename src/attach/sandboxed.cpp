#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "attach/front.h"
#include "attach/front_service.h"
#include "attach/kept_memory.h"
#include "attach/page_tables.h"
#include "qemu/monitor_session.h"
#include "sandbox/call_filter.h"
#include "sandbox/sandbox.h"
#include "vmsight/guest.h"

namespace vmsight {
namespace {

/// Of a guest's memories: the process that this one must read, and those that the front is to read instead.
struct Division {
  std::string impossible;  // why there can be no sandbox, or ""
  pid_t process = 0;
  std::vector<std::unique_ptr<GuestMemory>*> kept;
};

Result<Division> divide(Guest& guest) {
  Division division;
  for (auto* memory : {&guest.live, &guest.memory}) {
    if (!*memory) continue;
    VMSIGHT_TRY(const ReadRights rights, (*memory)->prepare());
    if (!rights.suffice && (*memory)->nature().is_read_halted()) {
      division.impossible = fmt::format("the guest would stand longer while the front reads by {}",
                                        (*memory)->technique());
    } else if (!rights.suffice) {
      division.kept.push_back(memory);
    } else if (rights.process != 0) {
      division.process = rights.process;  // QEMU's, whichever memory says so
    }
  }
  return division;
}

/// Lets go of a memory, for the front to open it anew.
struct Kept {
  explicit Kept(std::unique_ptr<GuestMemory>& from)
      : place(from), ram(from->ram()), nature(from->nature()), technique(from->technique()) {
    from.reset();
  }
  std::unique_ptr<GuestMemory>& place;
  RamMap ram;
  ViewNature nature;
  std::string technique;
};

Result<void> replace_kept(std::vector<Kept>& all, const std::shared_ptr<Front>& front) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto ask = [front, number = std::to_string(i)](std::string_view question) {
      return front->ask(Front::Task::memory, number, question);
    };
    VMSIGHT_TRY(all[i].place, open_kept_memory(ask, all[i].ram, all[i].nature, all[i].technique));
  }
  return {};
}

/// What is written by who reads the guest: a file of the program's, and what an image is unpacked into.
std::vector<int> writes(const Guest& guest, const AttachOptions& options) {
  std::vector<int> all = guest.image_file ? outputs_of(*guest.image_file) : std::vector<int>();
  if (options.service && options.service->output() >= 0) all.push_back(options.service->output());
  return all;
}

}  // namespace

Result<std::string> enter_sandbox(Guest& guest, const AttachOptions& options) {
  if (guest.front) return std::string();  // entered already
  if (!has_system_call_filters()) return std::string("the kernel has no seccomp filters");
  VMSIGHT_TRY_VOID(check_may_enter_sandbox());
  CacheDirectory cache(options.cache_directory);
  FrontDuties duties{.cache = options.cache_directory.empty() ? nullptr : &cache,
                     .vm = guest.vm.get(),
                     .identity = guest.identity,
                     .service = options.service.get()};
  // Who halts the guest by the monitor gives it to his guard, and QEMU talks to one.
  if (guest.vm && MonitorSession::is_open(guest.vm->info()))
    duties.page_tables = page_tables_of(*guest.vm);
  VMSIGHT_TRY(const Division division, divide(guest));
  if (!division.impossible.empty()) return division.impossible;
  std::vector<Kept> kept;
  for (auto* memory : division.kept) {
    const Kept& one = kept.emplace_back(*memory);
    duties.memories.emplace_back([&vm = *guest.vm, technique = one.technique, wish = options.wish] {
      return open_view(vm, technique, wish);
    });
  }
  // Where the front opens the monitor itself it asks when it is asked.
  if (guest.vm && !MonitorSession::is_open(guest.vm->info())) duties.page_tables.clear();
  duties.ends_reader = division.process != 0;
  VMSIGHT_TRY(guest.front, Front::start(duties));
  VMSIGHT_TRY_VOID(replace_kept(kept, guest.front));
  auto entered =
      enter_sandbox(SandboxRights{.reads = division.process, .writes = writes(guest, options)});
  if (entered) return std::string();
  entered.error().hint = "--no-sandbox goes on without";
  return std::move(entered).error();
}

Result<std::string> ask_service(const Guest& guest, const AttachOptions& options,
                                std::string_view what, std::string_view text) {
  if (guest.front) return guest.front->ask(Front::Task::service, what, text);
  return options.service->serve(what, text);
}

}  // namespace vmsight
