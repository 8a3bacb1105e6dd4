// vmsight findmnt VM: mounts.
#include "cli/filters.h"
#include "cli/target.h"
#include "render/mounts.h"

namespace vmsight {
namespace {

class Findmnt : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("TARGET", targets_, "only these mount points or sources")->group("Arguments");
    app.add_option("-t,--types", types_, "only these file system types")
        ->group(filter_group)
        ->type_name("TYPE,...")
        ->delimiter(',');
    app.add_option("-p,--pid", pid_, "the mount namespace of this process (default 1)")
        ->group(filter_group)
        ->type_name("PID");
    app.add_option("--mntns", mntns_, "this mount namespace")
        ->group(filter_group)
        ->type_name("INODE");
    app.add_flag("-A,--all", all_, "all mount namespaces")->group(filter_group);
    app.add_flag("-l,--list", list_, "a list, not a tree")->group(format_group);
  }

  Result<void> run(Session& session) override {
    StateVerb verb;
    verb.options.parts = part_mounts | part_processes;
    verb.shown = part_mounts;
    verb.filter = [this](State& state, Target&) { return filter(state); };
    verb.text = [&](Output& out, const State& state, const Target&) {
      const bool list = list_ || !targets_.empty() || !types_.empty();
      print_mounts(out, state, list ? MountLayout::list : MountLayout::tree,
                   {.headers = session.common.headers});
    };
    return show_state(session, verb);
  }

 private:
  Result<void> filter(State& state) {
    mntns_given_ = mntns_.has_value();
    if (!mntns_ && !all_) {
      VMSIGHT_TRY(mntns_, namespace_of(state, pid_));
    }
    std::erase_if(state.mounts, [this](const Mount& mount) {
      const bool target =
          targets_.empty() || among(targets_, mount.target) || among(targets_, mount.source);
      return !target || !among(types_, mount.fstype) || (mntns_ && mount.mntns != *mntns_);
    });
    const bool asked = !targets_.empty() || !types_.empty() || mntns_given_;
    if (state.mounts.empty() && asked) {
      return Error{.code = ErrorCode::not_found,
                   .message = "findmnt: no such mount in the guest",
                   .hint = "`vmsight findmnt VM --all` shows those of all mount namespaces"};
    }
    return {};
  }

  static Result<std::optional<std::uint64_t>> namespace_of(const State& state, std::int32_t pid) {
    for (const Process& process : state.processes) {
      if (process.pid == pid) return process.mntns;
    }
    return no_such_pid(pid);
  }

  std::vector<std::string> targets_, types_;
  std::int32_t pid_ = 1;
  std::optional<std::uint64_t> mntns_;
  bool all_ = false, list_ = false, mntns_given_ = false;
};

}  // namespace

extern const VerbInfo findmnt_verb{
    .name = "findmnt",
    .group = "What is in the guest",
    .arguments = "VM [TARGET...] [options]",
    .summary = "Mounts, of the namespace of PID 1 or of another",
    .examples =
        "  vmsight findmnt web1\n"
        "  vmsight findmnt web1 -l -t ext4,xfs --all\n",
    .make = make_verb<Findmnt>,
};

}  // namespace vmsight
