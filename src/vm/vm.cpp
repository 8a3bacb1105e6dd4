// open_vm: an attached VM.
#include "vmsight/vm.h"

#include "vm/host_maps.h"
#include "vm/process.h"
#include "vm/ram_layout.h"

namespace vmsight {
namespace {

class QemuVm final : public Vm {
 public:
  explicit QemuVm(VmInfo info) : info_(std::move(info)) {}

  Result<void> attach() {
    VMSIGHT_TRY(pidfd_, open_pidfd({info_.pid, info_.start_time}));
    VMSIGHT_TRY(const CommandLine line, parse_command_line(info_.arguments));
    VMSIGHT_TRY_VOID(find_blocks(line));
    VMSIGHT_TRY(ram_, derive_ram_map(line, blocks_));
    return check_alive();
  }

  const VmInfo& info() const override { return info_; }
  const std::vector<RamBlock>& blocks() const override { return blocks_; }
  const RamMap& ram() const override { return ram_; }
  std::string_view ram_source() const override { return ram_source_; }
  std::string monitor_note() const override { return monitor_note_; }
  Result<void> check_alive() const override { return check_pidfd(pidfd_.get(), info_.pid); }
  Result<std::vector<VcpuRegisters>> registers() override { return no_monitor(); }
  Result<std::string> run_state() override { return no_monitor(); }

 private:
  Error no_monitor() const {
    return {.code = ErrorCode::unsupported, .message = "ask the QEMU monitor: " + monitor_note_};
  }

  Result<void> find_blocks(const CommandLine& line) {
    VMSIGHT_TRY(const std::string text, read_proc_file(info_.pid, "maps"));
    VMSIGHT_TRY(const auto maps, parse_maps(text));
    std::vector<MemoryBackend> backends = line.main_memory;
    for (const Dimm& dimm : line.dimms) {
      for (const MemoryBackend& backend : line.backends) {
        if (backend.id == dimm.backend) backends.push_back(backend);
      }
    }
    VMSIGHT_TRY(blocks_, find_ram_blocks(maps, backends,
                                         [this] { return read_proc_file(info_.pid, "smaps"); }));
    return {};
  }

  VmInfo info_;
  UniqueFd pidfd_;
  std::vector<RamBlock> blocks_;
  RamMap ram_;
  std::string_view ram_source_ = "derived";
  std::string monitor_note_ = "not used";
};

}  // namespace

std::string_view to_string(Accelerator accelerator) {
  switch (accelerator) {
    case Accelerator::tcg: return "tcg";
    case Accelerator::kvm: return "kvm";
    case Accelerator::unknown: break;
  }
  return "unknown";
}

std::string_view to_string(Backing backing) {
  switch (backing) {
    case Backing::anonymous: return "anonymous";
    case Backing::shared_file: return "shared file";
    case Backing::private_file: return "private file";
  }
  return "unknown";
}

Result<std::unique_ptr<Vm>> open_vm(const VmInfo& info) {
  auto vm = std::make_unique<QemuVm>(info);
  VMSIGHT_TRY_VOID(vm->attach());
  return std::unique_ptr<Vm>(std::move(vm));
}

}  // namespace vmsight
