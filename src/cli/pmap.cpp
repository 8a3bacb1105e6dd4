// vmsight pmap VM PID...: memory maps of processes.
#include <unordered_set>

#include "cli/filters.h"
#include "cli/target.h"
#include "render/maps.h"

namespace vmsight {
namespace {

class Pmap : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("PID", pids_, "processes of the guest")->group("Arguments");
    app.add_flag("-a,--all", all_, "all processes")->group(filter_group);
    app.add_flag("-x,--extended", format_.residency, "how much is in RAM, and how much is dirty")
        ->group(format_group);
    app.add_flag("-X,--more", format_.extended, "offset, device and inode too")
        ->group(format_group);
    app.add_flag("-p,--show-path", format_.full_paths, "whole paths of files")->group(format_group);
  }

  Result<void> run(Session& session) override {
    if (pids_.empty() && !all_) {
      return usage_error("pmap: no PID given", "give PIDs of the guest, or --all");
    }
    StateVerb verb;
    verb.options.parts = part_processes | part_memory_maps;
    verb.options.residency = format_.residency;
    if (pids_.size() == 1 && !all_) verb.options.pid = pids_.front();
    format_.table.headers = session.common.headers;
    verb.filter = [this](State& state, Target&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Target&) {
      print_memory_maps(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  Result<void> filter(State& state) const {
    if (all_) return {};
    std::unordered_set<std::int32_t> known;
    for (const Process& process : state.processes) known.insert(process.pid);
    for (std::int32_t pid : pids_) {
      if (!known.contains(pid)) return no_such_pid(pid);
    }
    std::erase_if(state.processes, [this](const Process& p) { return !among(pids_, p.pid); });
    std::erase_if(state.memory_maps, [this](const MemoryMap& m) { return !among(pids_, m.pid); });
    return {};
  }

  std::vector<std::int32_t> pids_;
  bool all_ = false;
  PmapFormat format_;
};

}  // namespace

extern const VerbInfo pmap_verb{
    .name = "pmap",
    .group = "What is in the guest",
    .arguments = "VM PID... [options]",
    .summary = "Memory maps of processes",
    .examples =
        "  vmsight pmap web1 1 -x\n"
        "  vmsight pmap web1 --all --json | jq '.memory_maps | length'\n",
    .make = make_verb<Pmap>,
};

}  // namespace vmsight
