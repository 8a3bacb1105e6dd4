// vmsight list: the VMs on this host.
#include "cli/attach.h"
#include "cli/own_process.h"
#include "host/vm_info.h"
#include "render/escape.h"
#include "render/format.h"
#include "render/table.h"

namespace vmsight {
namespace {

Json vm_json(const VmInfo& vm, const std::string& release) {
  Json json = {{"name", for_json(vm.name)},
               {"pid", vm.pid},
               {"accelerator", to_string(vm.accelerator)},
               {"vcpus", vm.vcpus},
               {"memory_bytes", vm.memory_bytes},
               {"machine", for_json(vm.machine)},
               {"uuid", vm.uuid.empty() ? Json(nullptr) : Json(for_json(vm.uuid))},
               {"uid", vm.uid},
               {"executable", for_json(vm.executable)},
               {"qmp_sockets", Json::array()},
               {"libvirt", vm.libvirt}};
  for (const std::string& socket : vm.qmp_sockets) json["qmp_sockets"].push_back(for_json(socket));
  if (!release.empty()) json["kernel_release"] = for_json(release);
  return json;
}

/// What the guest has, as `info` says it: with what was plugged in. Asking costs an attach, so only VMs
/// that can have such memory are asked.
std::uint64_t memory_now(const VmInfo& vm) {
  if (!may_have_plugged_memory(vm)) return vm.memory_bytes;
  const auto opened = open_vm(vm);
  return opened ? memory_of(**opened) : vm.memory_bytes;
}

Result<std::string> read_release(const CommonOptions& options) {
  State state;
  VMSIGHT_TRY_VOID(with_guest(
      options, [&](Guest& guest) { return read_state(guest, {.parts = part_os}, state); }));
  return std::string(state.os.release);
}

/// What `uname -r` says in the guest, or why it is not known.
std::string kernel_release(const CommonOptions& common, const VmInfo& vm) {
  CommonOptions options = common;
  options.vm = std::to_string(vm.pid);
  const auto release = in_own_process([&] { return read_release(options); });
  return release ? *release : fmt::format("({})", release.error().message);
}

class List : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("-k,--guest-kernel", kernels_, "also the release of each guest's kernel")
        ->group(format_group);
    app.add_flag("-q,--names", names_only_, "names only")->group(format_group);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY(VmList list, list_vms());
    if (!names_only_) {
      for (VmInfo& vm : list.vms) vm.memory_bytes = memory_now(vm);
    }
    std::vector<std::string> releases(list.vms.size());
    if (kernels_) {
      for (std::size_t i = 0; i < list.vms.size(); ++i) {
        releases[i] = kernel_release(session.common, list.vms[i]);
      }
    }
    if (session.common.json)
      print_json(session.out, list, releases);
    else
      print_text(session, list, releases);
    VMSIGHT_TRY_VOID(session.out.finish());
    if (list.unreadable > 0) {
      fmt::print(stderr,
                 "vmsight: warning: {} more VMs may not be looked at\n"
                 "hint: run as root, or as the user that runs QEMU\n",
                 list.unreadable);
    }
    return {};
  }

 private:
  static void print_json(Output& out, const VmList& list,
                         const std::vector<std::string>& releases) {
    Json vms = Json::array();
    for (std::size_t i = 0; i < list.vms.size(); ++i) {
      vms.push_back(vm_json(list.vms[i], releases[i]));
    }
    out.print("{}\n",
              dump({{"schema", "vmsight.list/1"}, {"vms", vms}, {"unreadable", list.unreadable}}));
  }

  void print_text(Session& session, const VmList& list,
                  const std::vector<std::string>& releases) const {
    if (names_only_) {
      for (const VmInfo& vm : list.vms) session.out.print("{}\n", for_terminal(vm.name));
      return;
    }
    std::vector<Column> columns = {{"PID", Align::right},
                                   {"USER", Align::right},
                                   {"NAME"},
                                   {"VCPUS", Align::right},
                                   {"MEMORY", Align::right},
                                   {"ACCEL"},
                                   {"MACHINE"}};
    if (kernels_) columns.push_back({"KERNEL"});
    Table table(std::move(columns));
    for (std::size_t i = 0; i < list.vms.size(); ++i) {
      const VmInfo& vm = list.vms[i];
      table.row({std::to_string(vm.pid), std::to_string(vm.uid), vm.name, std::to_string(vm.vcpus),
                 byte_size(vm.memory_bytes), to_string(vm.accelerator), vm.machine});
      if (kernels_) table.cell(releases[i]);
    }
    table.print(session.out, {.headers = session.common.headers});
  }

  bool kernels_ = false, names_only_ = false;
};

}  // namespace

extern const VerbInfo list_verb{
    .name = "list",
    .group = "VMs",
    .arguments = "[options]",
    .summary = "The VMs on this host",
    .examples =
        "  vmsight list\n"
        "  vmsight list --guest-kernel\n",
    .vm = VmArgument::none,
    .make = make_verb<List>,
};

}  // namespace vmsight
