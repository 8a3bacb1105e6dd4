// vmsight pmap VM PID...: memory maps of processes.
#include <unordered_set>

#include "base/text.h"
#include "cli/attach.h"
#include "cli/filters.h"
#include "render/maps_text.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

class Pmap : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("PID", pids_, "processes of the guest")->group("Arguments");
    app.add_flag("-a,--all", all_, "all processes")->group(filter_group);
    app.add_flag("-x,--extended", format_.residency, "how much is in RAM, and how much is dirty")
        ->group(format_group);
    app.add_flag("-d,--device", format_.device, "offsets and devices of files")
        ->group(format_group);
    app.add_flag("-q,--quiet", quiet_, "no headings and totals")->group(format_group);
    app.add_option("-A,--range", range_, "only maps that reach into these addresses")
        ->group(filter_group)
        ->type_name("LOW[,HIGH]");
    app.add_flag("-p,--show-path", format_.full_paths, "whole paths of files")->group(format_group);
  }

  Result<void> run(Session& session) override {
    if (pids_.empty() && !all_) {
      return usage_error("pmap: no PID given", "give PIDs of the guest, or --all");
    }
    if (format_.residency && format_.device) {
      return usage_error("pmap: -x and -d exclude each other", "give one of them");
    }
    VMSIGHT_TRY_VOID(take_range());
    StateVerb verb;
    verb.rows = part_memory_maps;
    verb.options.parts = part_processes | part_memory_maps;
    verb.options.residency = format_.residency;
    if (pids_.size() == 1 && !all_) verb.options.pid = pids_.front();
    session.common.headers &= !quiet_;
    format_.headers = session.common.headers;
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Guest&) {
      print_memory_maps(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  Result<void> take_range() {
    if (range_.empty()) return {};
    const std::size_t comma = std::min(range_.find(','), range_.size());
    const auto address = [](std::string_view text) {
      if (text.starts_with("0x")) text.remove_prefix(2);
      return parse_whole<std::uint64_t>(text, 16);
    };
    const std::string_view text = range_;
    low_ = address(text.substr(0, comma));
    high_ = comma == text.size() ? low_ : address(text.substr(comma + 1));
    if (low_ && high_ && *low_ <= *high_) return {};
    return usage_error("pmap: '" + range_ + "' is no range of addresses",
                       "LOW or LOW,HIGH in hexadecimal");
  }

  Result<void> filter(State& state) const {
    if (low_) {
      std::erase_if(state.memory_maps, [this](const MemoryMap& map) {
        return map.end <= *low_ || map.start > *high_;
      });
    }
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
  std::string range_;
  std::optional<std::uint64_t> low_, high_;
  bool all_ = false, quiet_ = false;
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
    .shows_records = true,
    .make = make_verb<Pmap>,
};

}  // namespace vmsight
