// credentials: programs that have the credentials of the kernel itself, or more rights than when they
// were seen last, without a way by which the kernel gives them.
//
//   init_cred            belongs to threads of the kernel alone: each program gets a copy of its own
//   becoming root        takes execve() of a set-uid program (self_exec_id counts up), or CAP_SETUID,
//                        or that one of its three UIDs was 0
//   more capabilities    take execve(), too, or another user namespace
//
// The second and the third need a look before: the checker remembers (cred_memory.h).
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "detect/integrity/integrity_memory.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint32_t kernel_thread = 0x00200000;  // PF_KTHREAD
constexpr std::uint64_t may_set_uid = 1ULL << 7;     // CAP_SETUID

using Program = CredMemory::Program;

struct Task {
  GuestVirt real, effective;
  Program program;
};

class CredReader {
 public:
  static Result<CredReader> resolve(Kernel& kernel) {
    CredReader self;
    Members members(kernel);
    self.real_ = members.offset("task_struct", "real_cred");
    self.effective_ = members.offset("task_struct", "cred");
    self.flags_ = members.offset("task_struct", "flags");
    self.mm_ = members.offset("task_struct", "mm");
    self.pid_ = members.offset("task_struct", "pid");
    self.start_ = members.offset("task_struct", {"start_boottime", "real_start_time"});
    self.exec_id_ = members.member("task_struct", "self_exec_id");
    constexpr const char* ids[] = {"uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid"};
    for (std::size_t i = 0; i < std::size(ids); ++i) self.ids_[i] = members.offset("cred", ids[i]);
    constexpr const char* caps[] = {"cap_inheritable", "cap_permitted", "cap_effective", "cap_bset",
                                    "cap_ambient"};
    for (std::size_t i = 0; i < std::size(caps); ++i)
      self.caps_[i] = members.offset("cred", caps[i]);
    self.namespace_ = members.offset("cred", "user_ns");
    VMSIGHT_TRY_VOID(members.check());
    return self;
  }

  /// nullopt if there is another task by now, or a thread of the kernel, or it is not readable.
  std::optional<Task> read(Reader& reader, GuestVirt at, std::int32_t pid) const {
    reader.clear_fault();
    Task task{.real = reader.pointer(at + real_),
              .effective = reader.pointer(at + effective_),
              .program = {}};
    task.program = {.start = reader.u64(at + start_),
                    .cred = task.real,
                    .content = content(reader, task.real),
                    .exec_id = reader.value(at, exec_id_)};
    const bool same = static_cast<std::int32_t>(reader.u32(at + pid_)) == pid &&
                      reader.pointer(at + real_) == task.real;
    const bool of_kernel = (reader.u32(at + flags_) & kernel_thread) != 0;
    const bool is_user = reader.u64(at + mm_) != 0 && !of_kernel;
    const bool readable = reader.ok();
    reader.clear_fault();
    return readable && same && is_user ? std::optional(task) : std::nullopt;
  }

 private:
  CredContent content(Reader& reader, GuestVirt cred) const {
    const auto id = [&](std::size_t i) { return reader.u32(cred + ids_[i]); };
    const auto cap = [&](std::size_t i) { return reader.u64(cred + caps_[i]); };
    return {.uid = id(0),
            .gid = id(1),
            .suid = id(2),
            .sgid = id(3),
            .euid = id(4),
            .egid = id(5),
            .fsuid = id(6),
            .fsgid = id(7),
            .inheritable = cap(0),
            .permitted = cap(1),
            .effective = cap(2),
            .bounding = cap(3),
            .ambient = cap(4),
            .user_namespace = reader.pointer(cred + namespace_)};
  }

  Offset real_ = 0, effective_ = 0, flags_ = 0, mm_ = 0, pid_ = 0, start_ = 0, namespace_ = 0;
  Member exec_id_;
  std::array<Offset, 8> ids_{};
  std::array<Offset, 5> caps_{};
};

/// What the program has now that it could not have got; "" if that may be.
std::string gain(const Program& before, const Program& now) {
  const CredContent &was = before.content, &is = now.content;
  if (before.exec_id != now.exec_id) return "";
  const bool was_root = was.uid == 0 || was.euid == 0 || was.suid == 0;
  const bool is_root = is.uid == 0 || is.euid == 0 || is.suid == 0 || is.fsuid == 0;
  if (is_root && !was_root && (was.permitted & may_set_uid) == 0)
    return fmt::format("became root: it had the UIDs {}, {} and {}, and not CAP_SETUID", was.uid,
                       was.euid, was.suid);
  const std::uint64_t more = is.permitted & ~was.permitted;
  if (more != 0 && was.user_namespace == is.user_namespace)
    return fmt::format("got the capabilities {:#x}, which it did not have", more);
  return "";
}

void tell_program(Look& look, const Process& process, std::string_view what,
                  std::vector<std::string> sources, Sureness sureness) {
  look.find({.what = fmt::format("process {} ({}) {}", process.pid, process.comm, what),
             .object = fmt::format("process {}", process.pid),
             .sources = std::move(sources),
             .sureness = sureness,
             .address = process.task,
             .pid = process.pid});
}

/// Compares with what is remembered. What was found stays remembered as it was before: it is found
/// until it is as it was, or another program runs.
void compare_with_memory(Look& look, const Process& process, const Task& task) {
  Program& before =
      look.memory.credentials.programs.try_emplace(process.pid, task.program).first->second;
  if (before.start != task.program.start) before = task.program;
  const std::string gained = gain(before, task.program);
  if (!gained.empty()) {
    const bool in_place = before.cred == task.real;
    tell_program(look, process,
                 fmt::format("{}{}", gained,
                             in_place ? "; its struct cred, which never changes, was changed" : ""),
                 {"task_struct.real_cred", "the look before"}, Sureness::certain);
    return;
  }
  const bool changed = before.cred == task.real && before.content != task.program.content &&
                       before.exec_id == task.program.exec_id;
  if (changed) {
    tell_program(look, process,
                 "has the same struct cred as before with other contents: it was changed in place, "
                 "or given back and made anew",
                 {"task_struct.real_cred", "the look before"}, Sureness::hint);
  }
  before = task.program;
}

Result<void> check_credentials(Look& look) {
  const auto init_cred = look.kernel.symbol("init_cred");
  if (!init_cred) return lacks("init_cred");
  VMSIGHT_TRY(const CredReader creds, CredReader::resolve(look.kernel));
  std::set<std::int32_t> alive;
  for (const Process& process : look.state->processes) {
    alive.insert(process.pid);
    // The state was read some time ago: the task may be another by now.
    const auto task = creds.read(look.reader, process.task, process.pid);
    if (!task) continue;
    ++look.looked_at;
    const bool is_real = task->real == *init_cred;
    if (is_real || task->effective == *init_cred) {
      // A program in a system call may borrow them for a moment, as subjective ones.
      tell_program(look, process, "has the credentials of the kernel itself, init_cred",
                   {is_real ? "task_struct.real_cred" : "task_struct.cred", "init_cred"},
                   is_real ? Sureness::certain : Sureness::likely);
    }
    if (!is_real) compare_with_memory(look, process, *task);
  }
  std::erase_if(look.memory.credentials.programs,
                [&](const auto& program) { return !alive.contains(program.first); });
  return {};
}

}  // namespace

extern const IntegrityCheck credentials_check{
    .info = {.name = "credentials",
             .what = "no program has the kernel's own credentials, or rights that nobody gave it",
             .family = "processes"},
    .parts = part_processes,
    .run = check_credentials,
};

}  // namespace vmsight
