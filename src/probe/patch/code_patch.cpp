#include "probe/patch/code_patch.h"

#include <fcntl.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>

#include "halt/traced_threads.h"
#include "halt/vcpu_halt.h"
#include "host/vm_info.h"
#include "qemu/monitor_questions.h"
#include "qemu/monitor_session.h"
#include "qemu/run_state.h"

namespace vmsight {
namespace {

using nlohmann::json;

constexpr std::size_t max_patches = 1u << 14;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

Result<std::string> read_bytes(const RamWriter& ram, const CodePatch& patch) {
  std::string bytes(patch.before.size(), '\0');
  VMSIGHT_TRY_VOID(ram.read(patch.host, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

std::string place_of(const CodePatch& patch) {
  return patch.instruction.raw() != 0 ? fmt::format("{}", patch.instruction)
                                      : fmt::format("{}", patch.at);
}

bool is_inside(const CodePatch& patch, std::uint64_t rip) {
  return patch.instruction.raw() != 0 && rip > patch.instruction.raw() &&
         rip < patch.address.raw() + patch.before.size();
}

Result<void> check_outside(std::span<const CodePatch> patches,
                           const std::vector<VcpuRegisters>& vcpus) {
  for (const VcpuRegisters& vcpu : vcpus) {
    for (const CodePatch& patch : patches) {
      if (!is_inside(patch, vcpu.rip)) continue;
      return Error{.code = ErrorCode::bad_data,
                   .message = fmt::format("change the code at {}: vCPU {} stands within it",
                                          patch.instruction, vcpu.index),
                   .hint = "try again"};
    }
  }
  return {};
}

Result<void> write_all(const RamWriter& ram, std::span<const CodePatch> patches) {
  for (std::size_t i = 0; i < patches.size(); ++i) {
    auto written = ram.write(patches[i].host, bytes_of(patches[i].after));
    if (written) continue;
    for (std::size_t k = 0; k <= i; ++k) {
      static_cast<void>(ram.write(patches[k].host, bytes_of(patches[k].before)));
    }
    return written;
  }
  return {};
}

/// Those whose bytes are still ours.
Result<std::vector<CodePatch>> ours(const RamWriter& ram, std::span<const CodePatch> patches) {
  std::vector<CodePatch> found;
  for (const CodePatch& patch : patches) {
    VMSIGHT_TRY(const std::string bytes, read_bytes(ram, patch));
    if (bytes == patch.after) found.push_back(patch);
  }
  return found;
}

Result<void> put_back(const RamWriter& ram, std::span<const CodePatch> patches) {
  VMSIGHT_TRY(const auto still, ours(ram, patches));
  for (const CodePatch& patch : still) {
    VMSIGHT_TRY_VOID(ram.write(patch.host, bytes_of(patch.before)));
  }
  return {};
}

std::string to_hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

std::optional<std::string> from_hex(const json& value) {
  if (!value.is_string()) return std::nullopt;
  const std::string& text = value.get_ref<const std::string&>();
  if (text.empty() || text.size() % 2 != 0 || text.size() > 2 * CodePatch::max_size ||
      text.find_first_not_of("0123456789abcdef") != text.npos) {
    return std::nullopt;
  }
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoul(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

std::optional<CodePatch> parse_patch(const json& entry) {
  if (!entry.is_array() || entry.size() != 6) return std::nullopt;
  for (std::size_t i = 0; i < 4; ++i) {
    if (!entry[i].is_number_unsigned()) return std::nullopt;
  }
  const auto before = from_hex(entry[4]), after = from_hex(entry[5]);
  if (!before || !after || before->size() != after->size()) return std::nullopt;
  return CodePatch{.instruction = GuestVirt(entry[0].get<std::uint64_t>()),
                   .address = GuestVirt(entry[1].get<std::uint64_t>()),
                   .at = GuestPhys(entry[2].get<std::uint64_t>()),
                   .host = HostVirt(entry[3].get<std::uint64_t>()),
                   .before = *before,
                   .after = *after};
}

Result<void> undo_by_ptrace(const VmInfo& info, const RamWriter& ram,
                            std::span<const CodePatch> armed) {
  VMSIGHT_TRY(VcpuThreads threads, find_vcpu_threads(info));
  const auto halt =
      make_ptrace_halt({info.pid, info.start_time}, VcpuRoster(info.pid, std::move(threads)));
  VMSIGHT_TRY_VOID(halt->halt());
  auto done = put_back(ram, armed);
  VMSIGHT_TRY_VOID(halt->resume());
  return done;
}

/// A guard that may be killed too stops the guest by itself.
class UndoPause {
 public:
  explicit UndoPause(QmpClient& monitor) : monitor_(monitor) {}
  ~UndoPause() { static_cast<void>(end()); }

  Result<void> begin(const VmInfo& info) {
    VMSIGHT_TRY(const std::string status, ask_run_state(monitor_));
    if (status != "running") return {};
    VMSIGHT_TRY(const ProcessId self, identify(::getpid()));
    VMSIGHT_TRY(entry_, JournalEntry::prepare({info.pid, info.start_time},
                                              make_change(stopped_change), self));
    VMSIGHT_TRY_VOID(entry_.write());
    stopped_ = true;
    VMSIGHT_TRY(const json done, monitor_.execute({"stop"}));
    static_cast<void>(done);
    return {};
  }

  Result<void> end() {
    if (!std::exchange(stopped_, false)) return {};
    VMSIGHT_TRY(const json done, monitor_.execute({"cont"}));
    static_cast<void>(done);
    return entry_.remove();
  }

 private:
  QmpClient& monitor_;
  JournalEntry entry_;
  bool stopped_ = false;
};

Result<void> undo_by_own_stop(const VmInfo& info, const RamWriter& ram,
                              std::span<const CodePatch> armed) {
  VMSIGHT_TRY(QmpClient monitor, connect_monitor(info));
  UndoPause pause(monitor);
  VMSIGHT_TRY_VOID(pause.begin(info));
  VMSIGHT_TRY(const auto vcpus, ask_registers(monitor));
  VMSIGHT_TRY_VOID(check_outside(armed, vcpus));
  VMSIGHT_TRY_VOID(put_back(ram, armed));
  return pause.end();
}

}  // namespace

Result<RamWriter> RamWriter::open(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/mem", pid);
  RamWriter ram;
  ram.memory_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!ram.memory_) return os_error(errno, "open " + path);
  return ram;
}

Result<void> RamWriter::read(HostVirt from, std::span<std::byte> into) const {
  const ssize_t got =
      ::pread(memory_.get(), into.data(), into.size(), static_cast<off_t>(from.raw()));
  if (got == static_cast<ssize_t>(into.size())) return {};
  return os_error(got < 0 ? errno : EIO, fmt::format("read guest RAM at {}", from));
}

Result<void> RamWriter::write(HostVirt to, std::span<const std::byte> bytes) const {
  const ssize_t done =
      ::pwrite(memory_.get(), bytes.data(), bytes.size(), static_cast<off_t>(to.raw()));
  if (done == static_cast<ssize_t>(bytes.size())) return {};
  return os_error(done < 0 ? errno : EIO, fmt::format("write guest RAM at {}", to));
}

namespace {

Result<void> check_as_expected(const RamWriter& ram, std::span<const CodePatch> patches) {
  for (const CodePatch& patch : patches) {
    VMSIGHT_TRY(const std::string bytes, read_bytes(ram, patch));
    if (bytes == patch.before) continue;
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("change the code at {}: it is {}, not {}", place_of(patch),
                                        to_hex(bytes), to_hex(patch.before)),
                 .hint = "the guest changed it, or another vmsight; try again"};
  }
  return {};
}

/// One change of the code, by whoever halts the guest: a guard, or the guard of a monitor.
template <typename Asked>
Result<void> change_by(Asked& asked, std::chrono::milliseconds max_halt, GuardRequest how,
                       const json& payload, const PatchCheck& check) {
  const auto halted = asked.ask(GuardRequest::halt, static_cast<std::uint64_t>(max_halt.count()));
  if (!halted) return halted.error();
  auto done = check ? check() : Result<void>();
  if (done) {
    if (auto written = asked.ask(how, payload); !written) done = std::move(written).error();
  }
  const auto resumed = asked.ask(GuardRequest::resume);
  if (!done) return done;
  return resumed ? Result<void>() : resumed.error();
}

}  // namespace

Result<void> change_code(pid_t vm, GuardRequest how, const json& payload) {
  const auto patches = parse_patches(payload);
  if (!patches) {
    return Error{.code = ErrorCode::bad_data, .message = "change code: not a list of patches"};
  }
  VMSIGHT_TRY(const RamWriter ram, RamWriter::open(vm));
  if (how == GuardRequest::revert) return put_back(ram, *patches);
  VMSIGHT_TRY_VOID(check_as_expected(ram, *patches));
  return write_all(ram, *patches);
}

Result<Guard*> CodePatcher::guard() {
  if (guard_ && guard_->alive()) return guard_.get();
  guard_.reset();
  VMSIGHT_TRY(const VcpuThreads threads, find_vcpu_threads(vm_.info()));
  VMSIGHT_TRY(guard_,
              Guard::start({vm_.info().pid, vm_.info().start_time},
                           {.service = "patch", .config = to_json(threads), .descriptors = {}}));
  return guard_.get();
}

Result<std::uint64_t> CodePatcher::record(std::span<const CodePatch> patches) {
  VMSIGHT_TRY(Guard* const guard, this->guard());
  return guard->ask(GuardRequest::arm, record_of(patches).payload);
}

Result<void> CodePatcher::forget(std::uint64_t recorded) {
  VMSIGHT_TRY(Guard* const guard, this->guard());
  auto done = guard->ask(GuardRequest::disarm, recorded);
  if (!done) return std::move(done).error();
  return {};
}

Result<void> CodePatcher::apply(std::span<const CodePatch> patches, const PatchCheck& check) {
  return change(GuardRequest::write, patches, check);
}

Result<void> CodePatcher::revert(std::span<const CodePatch> patches) {
  return change(GuardRequest::revert, patches, {});
}

/// By ptrace: it needs no monitor, and the pause is shorter. Where another program traces QEMU
/// already, by QMP, where it is also seen whether a vCPU stands within an instruction: KVM gives
/// no registers of one that is stopped by ptrace. (One whole instruction is replaced by another, so
/// that nobody can.)
Result<void> CodePatcher::change(GuardRequest how, std::span<const CodePatch> patches,
                                 const PatchCheck& check) {
  const json payload = record_of(patches).payload;
  if (check_may_trace(vm_.info().pid)) {
    VMSIGHT_TRY(Guard* const guard, this->guard());
    auto done = change_by(*guard, max_halt_, how, payload, check);
    const bool other_traces = !done && done.error().code == ErrorCode::unsupported;
    if (!other_traces) return done;
  }
  VMSIGHT_TRY_VOID(vm_.check_alive());
  VMSIGHT_TRY(const auto session, MonitorSession::of(vm_.info()));
  return change_by(*session, max_halt_, how, payload, [&]() -> Result<void> {
    if (check) VMSIGHT_TRY_VOID(check());
    VMSIGHT_TRY(const auto vcpus, session->with_client(&ask_registers));
    return check_outside(patches, vcpus);
  });
}

Change record_of(std::span<const CodePatch> patches) {
  json list = json::array();
  for (const CodePatch& patch : patches) {
    list.push_back({patch.instruction.raw(), patch.address.raw(), patch.at.raw(), patch.host.raw(),
                    to_hex(patch.before), to_hex(patch.after)});
  }
  return make_change(probes_change, {{"patches", std::move(list)}});
}

std::optional<std::vector<CodePatch>> parse_patches(const json& payload) {
  const json list = payload.is_object() ? payload.value("patches", json()) : json();
  if (!list.is_array() || list.size() > max_patches) return std::nullopt;
  std::vector<CodePatch> patches;
  for (const json& entry : list) {
    auto patch = parse_patch(entry);
    if (!patch) return std::nullopt;
    patches.push_back(*std::move(patch));
  }
  return patches;
}

namespace {

Result<void> undo_probes(const ProcessId& vm, const json& payload) {
  const auto patches = parse_patches(payload);
  if (!patches) {
    return Error{.code = ErrorCode::bad_data, .message = "undo probes: not a record of them"};
  }
  VMSIGHT_TRY(const RamWriter ram, RamWriter::open(vm.pid));
  VMSIGHT_TRY(const auto armed, ours(ram, *patches));
  if (armed.empty()) return {};
  VMSIGHT_TRY(const VmInfo info, find_same_vm(vm));
  if (undo_by_ptrace(info, ram, armed)) return {};
  return undo_by_own_stop(info, ram, armed);
}

}  // namespace

constinit const ChangeKind probes_change{
    .name = "probes", .what = "probes were armed in the guest's code", .undo = undo_probes};

}  // namespace vmsight
