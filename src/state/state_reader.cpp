#include "state/state_reader.h"

#include "base/clock.h"
#include "state/retry.h"

namespace vmsight {

namespace {
constexpr unsigned process_parts =
    part_processes | part_open_files | part_memory_maps | part_sockets | part_mounts | part_threads;

/// Parts of processes stop at their bounds without a word; here it is said.
void tell_left_out(State& state) {
  const auto tell = [&](const char* part, const auto& records) {
    if (!is_full(records, state.arena)) return;
    state.problem(part,
                  fmt::format("there are too many to show them all: {} of them, and {} MiB of "
                              "text in the whole state",
                              records.size(), state.arena.bytes() >> 20));
  };
  tell("threads", state.threads);
  tell("open_files", state.open_files);
  tell("memory_maps", state.memory_maps);
  tell("mounts", state.mounts);
}

Consistency consistency_of(const ViewNature& nature) {
  if (!nature.one_moment) return Consistency::none;
  return nature.is_read_halted() ? Consistency::halt : Consistency::snapshot;
}

}  // namespace

Result<std::unique_ptr<StateReader>> StateReader::create(Kernel& kernel, GuestMemory& memory) {
  VMSIGHT_TRY(std::unique_ptr<StateReader> reader, LinuxStateReader::create(kernel, memory));
  return reader;
}

Result<std::unique_ptr<LinuxStateReader>> LinuxStateReader::create(Kernel& kernel,
                                                                   GuestMemory& memory) {
  VMSIGHT_TRY(ProcessesReader processes, ProcessesReader::resolve(kernel));
  VMSIGHT_TRY(Paths paths, Paths::resolve(kernel));
  VMSIGHT_TRY(MountsReader mounts, MountsReader::resolve(kernel));
  VMSIGHT_TRY(ChangeCounts counts, ChangeCounts::resolve(kernel, memory));
  return std::unique_ptr<LinuxStateReader>(
      new LinuxStateReader(kernel, memory, std::move(processes), std::move(paths),
                           std::move(mounts), std::move(counts)));
}

LinuxStateReader::LinuxStateReader(Kernel& kernel, GuestMemory& memory, ProcessesReader processes,
                                   Paths paths, MountsReader mounts, ChangeCounts counts)
    : kernel_(kernel),
      memory_(memory),
      reader_(memory, kernel.space()),
      processes_(std::move(processes)),
      paths_(std::move(paths)),
      mounts_(std::move(mounts)),
      counts_(std::move(counts)),
      table_(processes_, paths_, shared_),
      os_(OsReader::resolve(kernel)),
      cpus_(CpusReader::resolve(kernel)),
      net_devices_(NetDevicesReader::resolve(kernel)),
      modules_(ModulesReader::resolve(kernel)),
      sockets_(SocketsReader::resolve(kernel)),
      kernel_log_(KernelLogReader::resolve(kernel)),
      cgroups_(CgroupsReader::resolve(kernel)) {}

Result<void> LinuxStateReader::read(const StateOptions& options, State& into) {
  auto read = read_view(options, into);
  // Whatever happened, a guest that was halted for this runs on.
  auto ended = memory_.end_view();
  // A halt that was cut short explains whatever else went wrong, too.
  if (!ended && ended.error().code == ErrorCode::timeout) return ended;
  if (!read) return read;
  into.view.pause_ns = memory_.counters().pause_ns;
  return ended;
}

Result<void> LinuxStateReader::read_view(const StateOptions& options, State& into) {
  into.clear();
  const std::uint64_t start = monotonic_ns();
  // Before refresh(), where the guest runs: a scan does not lengthen a halt.
  if (memory_.is_live()) VMSIGHT_TRY_VOID(kernel_.check_running());
  if (memory_.is_live()) VMSIGHT_TRY_VOID(counts_.begin(memory_));
  VMSIGHT_TRY_VOID(memory_.refresh());
  reader_.flush();
  begin_part("kernel");
  VMSIGHT_TRY_VOID(check_kernel());

  Context context{kernel_, reader_, options, into, std::move(socket_files_), {}};
  context.socket_files.clear();
  shared_.clear();
  paths_.begin(reader_, into.arena, memory_.is_live());
  paths_.set_root(processes_.guest_root(reader_, paths_));
  read_part(context, os_, part_os, "os");
  read_part(context, cpus_, part_cpus, "cpus");
  read_part(context, net_devices_, part_net_devices, "net_devices");
  read_part(context, modules_, part_modules, "modules");
  VMSIGHT_TRY_VOID(read_processes(context));
  read_part(context, cgroups_, part_cgroups | part_groups_of_processes, "cgroups", shared_);
  read_part(context, sockets_, part_sockets, "sockets");
  VMSIGHT_TRY_VOID(read_mounts(context));
  read_part(context, kernel_log_, part_kernel_log, "kernel_log");
  tell_left_out(into);
  socket_files_ = std::move(context.socket_files);

  VMSIGHT_TRY_VOID(memory_.health());
  const MemoryCounters counters = memory_.counters();
  into.view = {.technique = std::string(memory_.technique()),
               .paused = memory_.nature().halts,
               .consistency = consistency_of(memory_.nature()),
               .inconsistencies = into.view.inconsistencies,
               .not_proven = {},
               .start_ns = start,
               .duration_ns = monotonic_ns() - start,
               .bytes_read = counters.bytes,
               .pages = counters.pages,
               .retries = into.view.retries + table_.retries()};
  return {};
}

/// Is the kernel that we found still there? After a guest reboot its memory is something else.
Result<void> LinuxStateReader::check_kernel() {
  const Tasks& tasks = processes_.tasks();
  const GuestVirt comm = tasks.init_task() + tasks.at().comm;
  char name[16];
  const bool idle = reader_.c_string(comm, name).starts_with("swapper") &&
                    reader_.u32(tasks.init_task() + tasks.at().pid) == 0;
  if (idle && reader_.ok()) return {};
  VMSIGHT_TRY_VOID(memory_.health());
  return Error{.code = ErrorCode::vm_gone,
               .message = "read state: the kernel is no longer where it was found",
               .hint = "the guest may have rebooted; attach again"};
}

void LinuxStateReader::begin_part(std::string_view name) {
  if (ReadLog* log = reader_.log()) log->begin_part(name);
}

template <typename Part, typename... Needs>
void LinuxStateReader::read_part(Context& context, Part& part, unsigned flags,
                                 std::string_view name, const Needs&... needs) {
  if ((context.options.parts & flags) == 0) return;
  begin_part(name);
  if (!part) {
    context.state.problem(std::string(name), part.error().message);
    return;
  }
  reader_.begin_object();
  part->read(context, needs...);
  reader_.clear_fault();
}

Result<void> LinuxStateReader::read_processes(Context& context) {
  unsigned parts = context.options.parts;
  if ((parts & process_parts) == 0) return {};
  begin_part("processes");
  if ((parts & part_sockets) != 0) parts |= part_open_files;  // they tell who owns a socket
  reader_.clear_fault();
  return table_.read(context, parts, counts_);
}

Result<void> LinuxStateReader::read_mounts(Context& context) {
  if ((context.options.parts & part_mounts) == 0) return {};
  begin_part("mounts");
  const unsigned attempts = memory_.is_live() ? std::max(1u, context.options.attempts) : 1;
  const std::size_t problems = context.state.problems.size();
  for (unsigned i = 1;; ++i) {
    context.state.mounts.clear();
    context.state.problems.resize(problems);
    reader_.begin_object();
    const auto broken = mounts_.read(context, paths_, shared_);
    bool moved = false;
    if (memory_.is_live()) {
      VMSIGHT_TRY(moved, counts_.mounted(memory_));
    }
    if (broken.empty() && !moved) return {};
    if (i == attempts) {
      tell_broken(context.state, broken);
      return {};
    }
    VMSIGHT_TRY_VOID(counts_.begin(memory_));
    prepare_retry(context, i);
  }
}

void LinuxStateReader::tell_broken(State& state, const std::vector<MountsReader::Broken>& broken) {
  if (broken.empty()) state.problem("mounts", "changed while they were read");
  constexpr std::size_t shown = 16;  // a hostile guest can make many
  for (std::size_t i = 0; i < std::min(broken.size(), shown); ++i) {
    state.problem("mounts", fmt::format("those of namespace {} are not readable at {}",
                                        broken[i].inode, broken[i].at));
  }
  if (broken.size() > shown) {
    state.problem("mounts", fmt::format("nor those of {} more", broken.size() - shown));
  }
}

}  // namespace vmsight
