#include "state/processes.h"

namespace vmsight {

namespace {

constexpr std::size_t max_tables = 1U << 16;  // of descriptors, of one process
// include/linux/sched.h, the same in 5.10-7.2
constexpr std::uint32_t task_new = 0x800;
constexpr std::uint32_t exit_dead = 0x10, exit_zombie = 0x20;
constexpr std::uint32_t pf_exiting = 0x4;

// enum pid_type in include/linux/pid_types.h
constexpr unsigned pidtype_group = 2, pidtype_session = 3;

}  // namespace

Validity judge(const LifeMarks& marks) {
  if ((marks.exit_state & exit_dead) != 0 || !marks.has_pid || !marks.has_signals) {
    return Validity::as_good_as_dead;
  }
  if ((marks.exit_state & exit_zombie) != 0) return Validity::zombie;
  if ((marks.flags & pf_exiting) != 0) return Validity::dying;
  if ((marks.state & task_new) != 0) return Validity::fresh;
  return Validity::live;
}

Result<ProcessesReader> ProcessesReader::resolve(Kernel& kernel) {
  Members members(kernel);
  ProcessesReader reader;
  VMSIGHT_TRY(reader.tasks_, Tasks::resolve(kernel));
  VMSIGHT_TRY(reader.names_, TaskNames::resolve(kernel));
  VMSIGHT_TRY(reader.namespaces_, NamespacesReader::resolve(kernel));
  VMSIGHT_TRY(reader.times_, TimesReader::resolve(kernel, reader.tasks_));
  VMSIGHT_TRY(reader.threads_, ThreadsReader::resolve(kernel, reader.tasks_, reader.names_));
  VMSIGHT_TRY(const FileObjects objects, FileObjects::resolve(kernel));
  reader.objects_ = objects;
  VMSIGHT_TRY(reader.memory_, ProcessMemoryReader::resolve(kernel, objects));
  VMSIGHT_TRY(reader.files_, FilesReader::resolve(kernel, objects));
  VMSIGHT_TRY(reader.maps_, MapsReader::resolve(kernel, objects));
  const auto cred = [&](std::string_view path) { return members.offset("cred", path); };
  const Offset pids = members.offset("signal_struct", "pids");
  reader.at_ = {
      .uid = cred("uid"),
      .gid = cred("gid"),
      .suid = cred("suid"),
      .sgid = cred("sgid"),
      .euid = cred("euid"),
      .egid = cred("egid"),
      .fsuid = cred("fsuid"),
      .fsgid = cred("fsgid"),
      .group = pids + 8 * pidtype_group,
      .session = pids + 8 * pidtype_session,
      .tty = members.offset("signal_struct", "tty"),
      .tty_index = members.offset("tty_struct", "index"),
      .tty_driver = members.offset("tty_struct", "driver"),
      .tty_group = members.offset("tty_struct", {"ctrl.pgrp", "pgrp"}),
      .driver_major = members.offset("tty_driver", "major"),
      .driver_minor = members.offset("tty_driver", "minor_start"),
      .fs_root = members.offset("fs_struct", "root"),
      .fs_pwd = members.offset("fs_struct", "pwd"),
  };
  reader.child_reaper_ =
      members.symbol("init_pid_ns") + members.offset("pid_namespace", "child_reaper");
  VMSIGHT_TRY_VOID(members.check());
  return reader;
}

PathRef ProcessesReader::guest_root(Reader& reader, const Paths& paths) const {
  const GuestVirt init = reader.pointer(child_reaper_);
  const GuestVirt fs = reader.pointer(init + tasks_.at().fs);
  return fs.raw() == 0 ? PathRef{} : paths.read(fs + at_.fs_root);
}

bool ProcessesReader::read(ProcessContext& process, const TaskIdentity& identity) const {
  Reader& reader = process.reader();
  const bool same = tasks_.identity(reader, identity.task) == identity;
  if (reader.ok() && !(same && tasks_.is_listed(reader, identity.task))) return false;
  Process record;
  Pointers to = read_task(process, identity.task, record);
  process.shared.threads.assign(1, identity.task);
  if (to.signal.raw() != 0) {
    read_signal(process, to.signal, record);
    times_.read(process, identity.task, to.signal, record);
  }
  if (to.mm.raw() == 0 && !record.kernel_thread) take_from_living_thread(process, to, record);
  const PathRef root = read_directories(process, to.fs, record);
  namespaces_.read(process, to.nsproxy, root, record);
  if (to.thread_pid.raw() != 0) namespaces_.read_pids(process, to.thread_pid, record);
  if (to.mm.raw() != 0) {
    memory_.read(process, to.mm, record);
  } else if (reader.ok()) {
    record.cmdline.emplace();  // as /proc shows it for kernel threads and zombies
  }
  process.state().processes.push_back(std::move(record));
  if (process.wants(part_open_files | part_threads)) read_tables(process, identity.pid);
  if (process.wants(part_threads)) threads_.read(process, identity.pid);
  if (to.mm.raw() != 0 && process.wants(part_memory_maps)) {
    maps_->read(process, identity.pid, to.mm);
  }
  return true;
}

/// A main thread that has ended has given up what its process still has through the others. /proc
/// shows that below /proc/PID/task.
void ProcessesReader::take_from_living_thread(ProcessContext& process, Pointers& to,
                                              Process& record) const {
  Reader& reader = process.reader();
  const Tasks::Offsets& at = tasks_.at();
  for (const GuestVirt task : process.shared.threads) {
    const auto proven = [&](Offset offset) {
      return process.proofs.expect(reader, task + offset, reader.pointer(task + offset));
    };
    if (!reader.ok()) return;
    const GuestVirt mm = reader.pointer(task + at.mm);
    if (mm.raw() == 0) continue;
    to.mm = proven(at.mm);
    to.fs = proven(at.fs);
    to.nsproxy = proven(at.nsproxy);
    record.validity = Validity::live;
    return;
  }
}

/// The open files of each descriptor table that a thread uses, once. Nearly always there is one.
void ProcessesReader::read_tables(ProcessContext& process, std::int32_t pid) const {
  Reader& reader = process.reader();
  process.shared.tables.clear();
  for (const GuestVirt task : process.shared.threads) {
    const GuestVirt at = task + tasks_.at().files;
    const GuestVirt files = process.proofs.expect(reader, at, reader.pointer(at));
    if (!reader.ok()) return;
    if (files.raw() == 0 || process.shared.tables.find(files) != nullptr) continue;
    if (process.shared.tables.size() == max_tables) return reader.set_fault(at);
    const auto tid = static_cast<std::int32_t>(reader.u32(task + tasks_.at().pid));
    process.shared.tables.insert(files, tid);
    if (process.wants(part_open_files)) files_->read(process, pid, tid, files);
  }
}

ProcessesReader::Pointers ProcessesReader::read_task(ProcessContext& process, GuestVirt task,
                                                     Process& record) const {
  Reader& reader = process.reader();
  const Tasks::Offsets& at = tasks_.at();
  const auto number = [&](Offset offset) {
    return static_cast<std::int32_t>(reader.u32(task + offset));
  };
  const auto proven = [&](Offset offset) {
    return process.proofs.expect(reader, task + offset, reader.pointer(task + offset));
  };
  const auto flags = reader.u32(task + at.flags);
  const auto exit_state =
      process.proofs.expect(reader, task + at.exit_state, reader.u32(task + at.exit_state));
  const Pointers to{proven(at.mm), proven(at.fs), proven(at.nsproxy), proven(at.signal),
                    proven(at.thread_pid)};
  const GuestVirt sighand = proven(at.sighand), parent = proven(at.real_parent);
  process.proofs.expect(reader, task + at.start_boottime, reader.u64(task + at.start_boottime));
  process.proofs.expect(reader, task + at.comm, reader.u64(task + at.comm));
  process.proofs.expect(reader, task + at.comm + 8, reader.u64(task + at.comm + 8));
  record.task = task;
  record.pid = process.proofs.expect(reader, task + at.pid, number(at.pid));
  record.tgid = number(at.tgid);
  record.ppid = static_cast<std::int32_t>(reader.u32(parent + at.tgid));
  record.comm = names_.read(reader, process.context.arena(), task, flags);
  record.state = tasks_.state_letter(reader, task);
  record.kernel_thread = (flags & TaskNames::pf_kthread) != 0;
  record.start_time_ns = reader.u64(task + at.start_boottime);
  record.cpu = number(at.cpu);
  record.priority = ThreadsReader::priority(reader.u32(task + at.prio));
  record.nice = ThreadsReader::nice(reader.u32(task + at.static_prio));
  record.policy = reader.u32(task + at.policy);
  record.rt_priority = reader.u32(task + at.rt_priority);
  record.flags = flags;
  record.validity = judge({.state = reader.u32(task + at.state),
                           .exit_state = exit_state,
                           .flags = flags,
                           .has_pid = to.thread_pid.raw() != 0,
                           .has_signals = sighand.raw() != 0});
  read_credentials(process, task, record);
  return to;
}

void ProcessesReader::read_credentials(ProcessContext& process, GuestVirt task,
                                       Process& record) const {
  Reader& reader = process.reader();
  const GuestVirt field = task + tasks_.at().real_cred;
  const GuestVirt cred = process.proofs.expect(reader, field, reader.pointer(field));
  const auto id = [&](Offset offset) { return reader.u32(cred + offset); };
  const std::uint32_t ids[] = {id(at_.uid),  id(at_.gid),  id(at_.euid),  id(at_.egid),
                               id(at_.suid), id(at_.sgid), id(at_.fsuid), id(at_.fsgid)};
  if (!reader.ok()) return;
  record.uid = ids[0];
  record.gid = ids[1];
  record.euid = ids[2];
  record.egid = ids[3];
  record.suid = ids[4];
  record.sgid = ids[5];
  record.fsuid = ids[6];
  record.fsgid = ids[7];
}

void ProcessesReader::read_signal(ProcessContext& process, GuestVirt signal,
                                  Process& record) const {
  Reader& reader = process.reader();
  record.pgrp = namespaces_.number(reader, reader.pointer(signal + at_.group));
  record.session = namespaces_.number(reader, reader.pointer(signal + at_.session));
  const GuestVirt tty = reader.pointer(signal + at_.tty);
  if (tty.raw() == 0) return;
  record.tty_nr = terminal(reader, tty);
  const GuestVirt foreground = reader.pointer(tty + at_.tty_group);
  if (foreground.raw() != 0) record.tpgid = namespaces_.number(reader, foreground);
}

/// The device number of a terminal, as new_encode_dev() in include/linux/kdev_t.h packs it.
std::int32_t ProcessesReader::terminal(Reader& reader, GuestVirt tty) const {
  const GuestVirt driver = reader.pointer(tty + at_.tty_driver);
  const auto major = reader.u32(driver + at_.driver_major);
  const auto minor = reader.u32(driver + at_.driver_minor) + reader.u32(tty + at_.tty_index);
  return static_cast<std::int32_t>((minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12));
}

PathRef ProcessesReader::read_directories(ProcessContext& process, GuestVirt fs,
                                          Process& record) const {
  if (fs.raw() == 0) return {};
  const PathRef root = process.paths.read_proven(process.proofs, fs + at_.fs_root);
  const PathRef cwd = process.paths.read_proven(process.proofs, fs + at_.fs_pwd);
  record.root = process.paths.path(root);
  record.cwd = process.paths.path(cwd);
  record.root_file = objects_.facts_of(process.reader(), root);
  record.cwd_file = objects_.facts_of(process.reader(), cwd);
  return root;
}

}  // namespace vmsight
