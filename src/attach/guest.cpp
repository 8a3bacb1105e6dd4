#include "vmsight/guest.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <utility>

#include "attach/front.h"
#include "attach/page_tables.h"
#include "kernel/vmcoreinfo.h"
#include "undo/recovery.h"

namespace vmsight {
namespace {

bool is_image_file(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode));
}

Result<void> must_enter_sandbox(Guest& guest, const AttachOptions& options) {
  VMSIGHT_TRY(const std::string without, enter_sandbox(guest, options));
  if (without.empty()) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = "enter the sandbox: " + without,
               .hint = "attach without a sandbox, to guests that are trusted"};
}

Result<Guest> open_as_image(const std::string& path, const AttachOptions& options) {
  Guest guest;
  guest.name = path;
  VMSIGHT_TRY(guest.image_file, open_image_file(path));
  if (options.sandbox) VMSIGHT_TRY_VOID(must_enter_sandbox(guest, options));
  VMSIGHT_TRY(guest.image, read_image(*guest.image_file, options.image));
  return guest;
}

/// What tells the VM from every other one that this host ever ran.
std::string identity_of(const VmInfo& vm) {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return boot.empty() ? "" : fmt::format("vm-{}-{}-{}", vm.pid, vm.start_time, boot);
}

Result<Guest> open_as_vm(const std::string& spec, const AttachOptions& options) {
  VMSIGHT_TRY(const VmInfo info, find_vm(spec));
  if (options.found) options.found(info);
  Guest guest;
  guest.name = info.name;
  for (const Recovery& done : recover(ProcessId{info.pid, info.start_time})) {
    if (options.recovered) options.recovered(done);
  }
  VMSIGHT_TRY(guest.vm, open_vm(info));
  guest.identity = identity_of(info);
  return guest;
}

Result<std::unique_ptr<GuestMemory>> open_view_of(Guest& guest, const AttachOptions& options) {
  const std::string& technique = options.technique;
  if (guest.vm) return open_view(*guest.vm, technique, options.wish, &guest.passed_over);
  if (technique != "auto" && technique != "file") {
    return Error{.code = ErrorCode::unsupported,
                 .message = "technique " + technique + ": " + guest.name + " is an image",
                 .hint = "images are read by technique file; leave --technique out"};
  }
  return open_file_view(*guest.image);
}

Result<std::unique_ptr<Kernel>> kernel_of(const Guest& guest, const AttachOptions& options) {
  FindKernelOptions find{
      .cache_dir = options.cache_directory, .choose = options.kernel, .progress = options.progress};
  if (guest.front && !options.cache_directory.empty())
    find.cache = std::make_shared<FrontCache>(guest.front);
  if (!options.all_kernels) find.vm_identity = guest.identity;
  if (guest.image) {
    find.cr3 = guest.cr3();
    find.page_table = guest.image->kernel_page_table;
  }
  GuestMemory& memory =
      guest.live ? *guest.live : *guest.memory;  // the one of which views are begun
  auto kernel = find_kernel(memory, find);
  if (kernel || kernel.error().code != ErrorCode::ambiguous || !guest.vm) return kernel;
  // Asking the monitor for registers costs more than an attach and may find the socket taken,
  // so it is asked only when memory alone does not tell the live kernel from stale ones.
  find.cr3 = guest.cr3();
  return find.cr3.empty() ? std::move(kernel) : find_kernel(memory, find);
}

/// A proof needs memory of the guest as it runs, and where it fails another technique.
Result<void> open_for_proofs(Guest& guest, const AttachOptions& options) {
  TechniqueWish of_live = options.wish;
  of_live.consistent = false;
  of_live.no_pause = true;
  auto live = open_view(*guest.vm, options.technique, of_live);
  auto memory = open_view(*guest.vm, options.technique, options.wish, &guest.passed_over);
  // One that may be halted is not read without that: a proof may fail, and memory is read by others, too.
  if (!memory && (!live || !options.wish.no_pause)) return guest.explain(std::move(memory).error());
  guest.only_proofs = !memory.has_value();
  if (live) guest.live = *std::move(live);
  guest.memory = memory ? *std::move(memory) : std::move(guest.live);
  return {};
}

}  // namespace

Guest& Guest::operator=(Guest&& other) noexcept {
  kernel = std::move(other.kernel);  // each uses those that follow
  live = std::move(other.live);
  front = std::move(
      other.front);  // kept memory holds it; what is read here by a guard's help it holds up
  memory = std::move(other.memory);
  only_proofs = other.only_proofs;
  vm = std::move(other.vm);
  identity = std::move(other.identity);
  image_file = std::move(other.image_file);
  image = std::move(other.image);
  name = std::move(other.name);
  passed_over = std::move(other.passed_over);
  return *this;
}

std::vector<std::uint64_t> Guest::cr3() const {
  if (image && image->registers.empty()) {
    if (const auto table = page_table_of(image->vmcoreinfo)) return {*table};
  }
  if (image) return page_tables_of(image->registers);
  if (front) return front->cr3();
  return vm ? page_tables_of(*vm) : std::vector<std::uint64_t>();
}

Error Guest::explain(Error error) const {
  if (vm) {
    if (auto alive = vm->check_alive(); !alive) return std::move(alive).error();
  }
  return error;
}

Result<Guest> open_guest(const std::string& spec, const AttachOptions& options) {
  if (spec.find('/') != std::string::npos && is_image_file(spec))
    return open_as_image(spec, options);
  auto guest = open_as_vm(spec, options);
  if (!guest && guest.error().code == ErrorCode::not_found && is_image_file(spec)) {
    return open_as_image(spec, options);
  }
  return guest;
}

Result<void> open_memory(Guest& guest, const AttachOptions& options) {
  const bool is_chosen = guest.vm && options.technique == "auto";
  if (is_chosen && options.proves_states && options.wish.consistent)
    return open_for_proofs(guest, options);
  auto memory = open_view_of(guest, options);
  if (!memory) return guest.explain(std::move(memory).error());
  guest.memory = *std::move(memory);
  return {};
}

Result<void> find_kernel_of(Guest& guest, const AttachOptions& options) {
  auto kernel = kernel_of(guest, options);
  if (!kernel) return guest.explain(std::move(kernel).error());
  guest.kernel = *std::move(kernel);
  // A cache that cannot be written costs time at the next start, nothing else.
  if (!options.cache_directory.empty()) static_cast<void>(guest.kernel->save_cache());
  return {};
}

Result<std::unique_ptr<StateReader>> state_reader_of(Guest& guest) {
  if (guest.only_proofs) return StateReader::create_proven(*guest.kernel, *guest.memory, nullptr);
  if (guest.live) return StateReader::create_proven(*guest.kernel, *guest.live, guest.memory.get());
  return StateReader::create(*guest.kernel, *guest.memory);
}

Result<Guest> attach(const std::string& spec, const AttachOptions& options) {
  VMSIGHT_TRY(Guest guest, open_guest(spec, options));
  VMSIGHT_TRY_VOID(open_memory(guest, options));
  if (options.sandbox) VMSIGHT_TRY_VOID(must_enter_sandbox(guest, options));
  VMSIGHT_TRY_VOID(find_kernel_of(guest, options));
  return guest;
}

std::string default_cache_directory() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/vmsight";
  const char* home = std::getenv("HOME");
  return home != nullptr && home[0] == '/' ? std::string(home) + "/.cache/vmsight" : "";
}

}  // namespace vmsight
