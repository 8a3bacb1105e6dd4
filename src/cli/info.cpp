// vmsight info VM: one VM in detail, and how its kernel was found.
#include <algorithm>

#include "cli/attach.h"
#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

Json ranges_json(const RamMap& ram) {
  Json list = Json::array();
  for (const RamRange& range : ram.ranges()) {
    list.push_back({{"start", json_address(range.start.raw())},
                    {"end", json_address(range.end().raw())},
                    {"block", for_json(range.block)},
                    {"block_offset", json_address(range.block_offset)}});
  }
  return list;
}

Json blocks_json(const std::vector<RamBlock>& blocks) {
  Json list = Json::array();
  for (const RamBlock& block : blocks) {
    list.push_back({{"name", for_json(block.name)},
                    {"size", block.size},
                    {"backing", to_string(block.backing)},
                    {"path", for_json(block.path)},
                    {"host", json_address(block.host.raw())}});
  }
  return list;
}

Json host_json(const Guest& guest) {
  Json json = to_json(summary_of(guest));
  const RamMap& ram = guest.vm ? guest.vm->ram() : guest.image->ram;
  if (guest.vm) {
    const VmInfo& vm = guest.vm->info();
    json["executable"] = for_json(vm.executable);
    json["libvirt"] = vm.libvirt;
    json["ram_source"] = guest.vm->ram_source();
    json["ram_note"] = for_json(guest.vm->ram_note());
    json["monitor_note"] = for_json(guest.vm->monitor_note());
    json["blocks"] = blocks_json(guest.vm->blocks());
  } else {
    json["format"] = guest.image->format;
  }
  json["ram"] = ranges_json(ram);
  return json;
}

Json kernel_json(const Kernel& kernel) {
  const AttachReport& report = kernel.attach_report();
  Json candidates = Json::array();
  for (const KernelCandidate& candidate : report.candidates) {
    candidates.push_back({{"index", candidate.index},
                          {"banner", for_json(candidate.banner)},
                          {"build_id", candidate.build_id},
                          {"rodata", json_address(candidate.rodata.raw())},
                          {"live", candidate.live},
                          {"why", for_json(candidate.why)}});
  }
  const AddressSpace& space = kernel.space();
  return {{"banner", for_json(kernel.banner())},
          {"build_id", kernel.build_id()},
          {"image_start", json_address(space.image().start.raw())},
          {"image_delta", json_address(space.image().delta)},
          {"direct_map", json_address(kernel.page_offset().raw())},
          {"page_table", json_address(space.root().raw())},
          {"paging_levels", space.levels()},
          {"attach",
           {{"cache_used", report.cache_used},
            {"cache_note", for_json(report.cache_note)},
            {"scan_ns", report.scan_ns},
            {"symbols_ns", report.symbols_ns},
            {"types_ns", report.types_ns},
            {"total_ns", report.total_ns}}},
          {"candidates", candidates}};
}

void line(Output& out, std::string_view name, std::string_view value) {
  out.print("{:<14}{}\n", name, for_terminal(value));
}

void print_ram(Output& out, const Guest& guest) {
  const RamMap& ram = guest.vm ? guest.vm->ram() : guest.image->ram;
  for (const RamRange& range : ram.ranges()) {
    line(out, "ram",
         fmt::format("{} - {:#x}  {} at {:#x}", range.start, range.end().raw(),
                     range.block.empty() ? "file" : range.block, range.block_offset));
  }
  if (!guest.vm) return;
  line(out, "ram map from", guest.vm->ram_source());
  if (const std::string note = guest.vm->ram_note(); !note.empty()) line(out, "", note);
  for (const RamBlock& block : guest.vm->blocks()) {
    line(out, "backing",
         fmt::format("{}: {}, {} {}", block.name, byte_size(block.size), to_string(block.backing),
                     block.path));
  }
}

void print_host(Output& out, Guest& guest) {
  const VmSummary& vm = summary_of(guest);
  line(out, "name", vm.name);
  if (guest.image) line(out, "format", guest.image->format);
  if (guest.vm) {
    const VmInfo& info = guest.vm->info();
    line(out, "pid", std::to_string(info.pid));
    line(out, "qemu", info.executable);
    line(out, "machine", info.machine);
    line(out, "accelerator", to_string(info.accelerator));
    line(out, "vcpus", std::to_string(info.vcpus));
    if (info.libvirt) line(out, "libvirt", "yes");
    const std::string note = guest.vm->monitor_note();
    line(out, "monitor", note.empty() ? "used" : "not used: " + note);
    if (auto state = guest.vm->run_state()) line(out, "run state", *state);
  }
  line(out, "memory", byte_size(vm.memory_bytes));
  print_ram(out, guest);
}

/// Which technique reads the memory, and why not the ones that would have been taken before it.
void print_technique(Output& out, const Guest& guest) {
  line(out, "technique", guest.memory->technique());
  for (const TechniqueStatus& status : guest.passed_over) {
    line(out, "", fmt::format("not {}: {}", status.name, status.reason));
  }
}

Json passed_over_json(const Guest& guest) {
  Json list = Json::array();
  for (const TechniqueStatus& status : guest.passed_over) {
    list.push_back({{"name", status.name}, {"reason", for_json(status.reason)}});
  }
  return list;
}

void print_kernel(Output& out, const Kernel& kernel) {
  const AttachReport& report = kernel.attach_report();
  const AddressSpace& space = kernel.space();
  line(out, "kernel", kernel.banner());
  line(out, "build id", kernel.build_id());
  line(out, "image",
       fmt::format("{} at gpa:{:#x}", space.image().start,
                   space.image().start.raw() - space.image().delta));
  line(out, "direct map", fmt::format("{}", kernel.page_offset()));
  line(out, "page table", fmt::format("{}, {} levels", space.root(), space.levels()));
  line(out, "attach",
       fmt::format("{} (scan {}, symbols {}, types {}); {}", duration(report.total_ns),
                   duration(report.scan_ns), duration(report.symbols_ns), duration(report.types_ns),
                   report.cache_used ? "cache used" : "cache not used"));
  if (!report.cache_note.empty()) line(out, "cache", report.cache_note);
  for (const KernelCandidate& candidate : report.candidates) {
    line(out, "candidate",
         fmt::format("{}{} {} at {}: {}", candidate.live ? "*" : " ", candidate.index,
                     candidate.build_id.substr(0, 12), candidate.rodata, candidate.why));
  }
}

class Info : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("--host-only", host_only_, "do not look for a kernel")->group(filter_group);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY(Guest guest, open_named_memory(session.common));
    Json json;
    if (session.common.json) {
      json = {{"schema", "vmsight.info/1"},
              {"vm", host_json(guest)},
              {"technique", guest.memory->technique()},
              {"passed_over", passed_over_json(guest)}};
    } else {
      print_host(session.out, guest);
      print_technique(session.out, guest);
    }
    Result<void> found;
    if (!host_only_) found = add_kernel(session, guest, json);
    if (session.common.json) session.out.print("{}\n", dump(json));
    return found;
  }

 private:
  /// What is known of the host side is printed even if no kernel is found.
  static Result<void> add_kernel(Session& session, Guest& guest, Json& json) {
    CommonOptions options = session.common;
    options.all_kernels = true;
    VMSIGHT_TRY_VOID(enter_sandbox_for(guest, options));
    VMSIGHT_TRY_VOID(find_kernel_in(guest, options));
    if (session.common.json)
      json["kernel"] = kernel_json(*guest.kernel);
    else
      print_kernel(session.out, *guest.kernel);
    return {};
  }

  bool host_only_ = false;
};

}  // namespace

extern const VerbInfo info_verb{
    .name = "info",
    .group = "VMs",
    .arguments = "VM [options]",
    .summary = "One VM in detail: its RAM, the technique that reads it, the kernel in it",
    .examples =
        "  vmsight info web1\n"
        "  vmsight info web1 --json | jq .kernel.attach\n",
    .make = make_verb<Info>,
};

}  // namespace vmsight
