#include "cli/target.h"

#include <sys/stat.h>
#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "cli/progress.h"
#include "cli/vmcoreinfo.h"
#include "render/escape.h"
#include "vm/info.h"
#include "vm/recovery.h"

namespace vmsight {
namespace {

constexpr std::size_t max_warnings = 5;  // in text; JSON has all problems

bool is_image_file(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode));
}

Result<Target> open_as_image(const std::string& path) {
  Target target;
  VMSIGHT_TRY(target.image, open_image(path));
  const std::vector<VcpuRegisters>& registers = target.image->registers;
  target.summary.name = path;
  for (const std::string& problem : target.image->problems)
    target.summary.problems.push_back({"image", problem});
  print_warnings(target.summary.problems);
  target.summary.memory_bytes = target.image->ram.total_bytes();
  if (!registers.empty()) target.summary.vcpus = static_cast<unsigned>(registers.size());
  return target;
}

/// A guest that a killed vmsight left stopped would be read as it was then.
void undo_what_was_left(const VmInfo& info) {
  for (const Recovery& done : recover(ProcessId{info.pid, info.start_time})) {
    fmt::print(stderr, "vmsight: {}: left by a killed vmsight: {}; {}\n", for_terminal(done.vm),
               for_terminal(done.what),
               done.undone ? "undone" : "not undone: " + for_terminal(done.reason));
  }
}

Result<Target> open_as_vm(const std::string& spec) {
  Target target;
  VMSIGHT_TRY(const VmInfo info, find_vm(spec));
  if (!info.passed_over.empty()) {
    fmt::print(stderr, "vmsight: note: \"{}\" is taken to be process {}; also claimed by {}\n",
               for_terminal(spec), info.pid, info.passed_over);
  }
  undo_what_was_left(info);
  VMSIGHT_TRY(target.vm, open_vm(info));
  const VmInfo& vm = target.vm->info();
  target.summary = {.name = vm.name,
                    .pid = vm.pid,
                    .accelerator = to_string(vm.accelerator),
                    .vcpus = vm.vcpus,
                    .memory_bytes = memory_of(*target.vm),
                    .machine = vm.machine};
  return target;
}

Result<std::unique_ptr<GuestMemory>> open_view_of(Target& target, const CommonOptions& options) {
  const std::string& technique = options.technique;
  if (target.vm) return open_view(*target.vm, technique, options.wish, &target.passed_over);
  if (technique != "auto" && technique != "file") {
    return Error{.code = ErrorCode::unsupported,
                 .message = "technique " + technique + ": " + target.image->path + " is an image",
                 .hint = "images are read by technique file; leave --technique out"};
  }
  return open_file_view(*target.image);
}

/// What tells the VM from every other one that this host ever ran.
std::string identity_of(const VmInfo& vm) {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return boot.empty() ? "" : fmt::format("vm-{}-{}-{}", vm.pid, vm.start_time, boot);
}

Result<std::unique_ptr<Kernel>> find_kernel_of(Target& target, const CommonOptions& options) {
  Progress progress;
  FindKernelOptions find;
  find.choose = options.kernel;
  if (options.use_cache) find.cache_dir = cache_directory();
  if (target.vm && !options.all_kernels) find.vm_identity = identity_of(target.vm->info());
  find.progress = [&](std::string_view what) { progress.say(what); };
  if (target.image) {
    find.cr3 = target.cr3();
    find.page_table = target.image->kernel_page_table;
  }
  auto kernel = find_kernel(*target.memory, find);
  if (kernel || kernel.error().code != ErrorCode::ambiguous || !target.vm) return kernel;
  // Asking the monitor for registers costs more than an attach and may find the socket taken,
  // so it is asked only when memory alone does not tell the live kernel from stale ones.
  find.cr3 = target.cr3();
  return find.cr3.empty() ? std::move(kernel) : find_kernel(*target.memory, find);
}

/// A read that failed because QEMU ended says so, whatever the failing call reported.
Error explain(const Target& target, Error error) {
  if (target.vm) {
    if (auto alive = target.vm->check_alive(); !alive) return std::move(alive).error();
  }
  return error;
}

}  // namespace

std::vector<std::uint64_t> Target::cr3() const {
  std::vector<VcpuRegisters> registers;
  if (image) registers = image->registers;
  if (image && registers.empty()) {
    if (const auto table = page_table_of(image->vmcoreinfo)) return {*table};
  }
  if (vm) {
    if (auto read = vm->registers()) registers = *std::move(read);
  }
  std::vector<std::uint64_t> values;
  for (const VcpuRegisters& vcpu : registers) values.push_back(vcpu.cr3);
  return values;
}

Result<Target> open_vm_or_image(const std::string& spec) {
  if (spec.find('/') != std::string::npos && is_image_file(spec)) return open_as_image(spec);
  auto target = open_as_vm(spec);
  if (!target && target.error().code == ErrorCode::not_found && is_image_file(spec)) {
    return open_as_image(spec);
  }
  return target;
}

Result<Target> open_memory(const CommonOptions& options) {
  VMSIGHT_TRY(Target target, open_vm_or_image(options.vm));
  auto memory = open_view_of(target, options);
  if (!memory) return explain(target, std::move(memory).error());
  target.memory = *std::move(memory);
  return target;
}

Result<void> find_kernel_in(Target& target, const CommonOptions& options) {
  auto kernel = find_kernel_of(target, options);
  if (!kernel) return explain(target, std::move(kernel).error());
  target.kernel = *std::move(kernel);
  // A cache that cannot be written costs time at the next start, nothing else.
  if (options.use_cache) static_cast<void>(target.kernel->save_cache());
  return {};
}

Result<void> in_one_view(Target& target, const std::function<Result<void>()>& use) {
  VMSIGHT_TRY(View view, View::begin(*target.memory));
  auto done = use();
  auto ended = view.end();
  if (!ended && ended.error().code == ErrorCode::timeout) return ended;
  return done ? std::move(ended) : std::move(done);
}

Result<void> with_target(const CommonOptions& options,
                         const std::function<Result<void>(Target&)>& use) {
  VMSIGHT_TRY(Target target, open_memory(options));
  VMSIGHT_TRY_VOID(find_kernel_in(target, options));
  auto done = use(target);
  if (!done) return explain(target, std::move(done).error());
  if (options.use_cache) static_cast<void>(target.kernel->save_cache());
  return {};
}

Result<void> read_state(Target& target, const StateOptions& options, State& into) {
  VMSIGHT_TRY(const auto reader, StateReader::create(*target.kernel, *target.memory));
  return reader->read(options, into);
}

Result<void> show_state(Session& session, const StateVerb& verb) {
  return with_target(session.common, [&](Target& target) -> Result<void> {
    State state;
    VMSIGHT_TRY_VOID(read_state(target, verb.options, state));
    if (verb.filter) VMSIGHT_TRY_VOID(verb.filter(state, target));
    if (session.common.json) {
      const unsigned shown = verb.shown != 0 ? verb.shown : verb.options.parts;
      write_document(session.out, target.summary, state, {.parts = shown});
    } else {
      verb.text(session.out, state, target);
      VMSIGHT_TRY_VOID(session.out.finish());
      print_warnings(state.problems);
      if (verb.verdict) return verb.verdict(state);
    }
    return {};
  });
}

void print_warnings(const std::vector<Problem>& problems) {
  const std::size_t shown = std::min(problems.size(), max_warnings);
  for (std::size_t i = 0; i < shown; ++i) {
    fmt::print(stderr, "vmsight: warning: {}: {}\n", for_terminal(problems[i].where),
               for_terminal(problems[i].what));
  }
  if (problems.size() > shown) {
    fmt::print(stderr, "vmsight: warning: {} more problems; --json shows all\n",
               problems.size() - shown);
  }
}

std::string cache_directory() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/vmsight";
  const char* home = std::getenv("HOME");
  return home != nullptr && home[0] == '/' ? std::string(home) + "/.cache/vmsight" : "";
}

}  // namespace vmsight
