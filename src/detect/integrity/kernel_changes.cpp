#include "detect/integrity/kernel_changes.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "state/lists.h"
#include "state/members.h"
#include "state/task_names.h"
#include "vmsight/reader.h"

namespace vmsight {
namespace {

/// Held while the kernel changes its code, from the tables that say how it shall be until all places are so:
/// kernel/extable.c, jump_label.c, static_call_inline.c, tracepoint.c, kprobes.c and trace/ftrace.c.
constexpr std::string_view code_locks[] = {"text_mutex",        "jump_label_mutex",
                                           "static_call_mutex", "tracepoints_mutex",
                                           "kprobe_mutex",      "ftrace_lock"};
/// Under it a module's start is taken from the module and put into init_free_list (kernel/module/main.c).
constexpr std::string_view module_locks[] = {"module_mutex"};

std::vector<GuestVirt> owners_of(Kernel& kernel, std::span<const std::string_view> locks) {
  std::vector<GuestVirt> owners;
  const auto owner = kernel.member("mutex", "owner");
  for (const std::string_view name : locks) {
    const auto lock = kernel.symbol(name);
    if (owner && lock) owners.push_back(*lock + owner->offset);
  }
  return owners;
}

}  // namespace

void KernelChanges::find_places() {
  if (std::exchange(knows_places_, true)) return;
  code_locks_ = owners_of(kernel_, code_locks);
  module_locks_ = owners_of(kernel_, module_locks);
  init_free_list_ = kernel_.symbol("init_free_list");
  do_free_init_ = kernel_.symbol("do_free_init");
  kthreadd_ = kernel_.symbol("kthreadd_task");
}

bool KernelChanges::under_way(unsigned kinds) {
  find_places();
  if ((kinds & code) != 0 && holds(code_locks_)) return true;
  return (kinds & module_start) != 0 && (holds(module_locks_) || gives_back_module_start());
}

bool KernelChanges::holds(const std::vector<GuestVirt>& locks) {
  return std::ranges::any_of(locks, [&](GuestVirt owner) { return word_now(owner) != 0; });
}

/// Past what this view has read before; 0 if it cannot be read.
std::uint64_t KernelChanges::word_now(GuestVirt at) {
  std::uint64_t value = 0;
  const auto place = kernel_.space().translate(memory_, at);
  if (!place) return 0;
  FreshRead read{*place, std::as_writable_bytes(std::span(&value, 1))};
  return memory_.read_fresh({&read, 1}) && read.ok ? value : 0;
}

/// It is in a list until a worker takes the list, waits for RCU, which may take long, and frees it.
bool KernelChanges::gives_back_module_start() {
  if (!init_free_list_ || !do_free_init_) return false;
  return word_now(*init_free_list_) != 0 || worker_runs(*do_free_init_);
}

bool KernelChanges::worker_runs(GuestVirt function) {
  Members members(kernel_);
  const Offset children = members.find("task_struct", "children");
  const Offset sibling = members.find("task_struct", "sibling");
  const Offset flags = members.find("task_struct", "flags");
  // Until 5.16 struct kthread was in a member that the kernel's threads do not use.
  const Offset kthread = members.find("task_struct", {"worker_private", "set_child_tid"});
  const Offset data = members.find("kthread", "data");
  const Offset current = members.find("worker", "current_func");
  for (const Offset offset : {children, sibling, flags, kthread, data, current}) {
    if (offset == absent) return false;
  }
  if (!kthreadd_) return false;
  Reader reader(memory_, kernel_.space());
  bool runs = false;
  const GuestVirt kthreadd = reader.pointer(*kthreadd_);
  const auto walk = [&] {
    return walk_list(reader, kthreadd + children, [&](GuestVirt node) {
      const GuestVirt task = node - sibling;
      if ((reader.u32(task + flags) & TaskNames::pf_wq_worker) == 0) return;
      const GuestVirt worker = reader.pointer(reader.pointer(task + kthread) + data);
      runs |= reader.pointer(worker + current) == function && reader.ok();
      reader.clear_fault();
    });
  };
  if (!memory_.nature()
           .direct) {  // the pages that it needs may have been read before, for something else
    reader.begin_object();
    static_cast<void>(walk());
    reader.refetch();
    runs = false;
  }
  static_cast<void>(walk());
  return runs;
}

}  // namespace vmsight
