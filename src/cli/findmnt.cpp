// vmsight findmnt VM: mounts.
#include <fmt/ranges.h>

#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "cli/attach.h"
#include "cli/filters.h"
#include "render/mounts_text.h"
#include "state/user_space.h"

namespace vmsight {
namespace {

/// "foo" or "foo=bar" is there, "nofoo" if foo is not; "+nofoo" if there is an option of this name.
bool has_options(const std::string& options, std::string_view pattern) {
  const std::vector<std::string_view> present = split_at_commas(options);
  const auto there = [&](std::string_view wanted) {
    return std::any_of(present.begin(), present.end(), [&](std::string_view option) {
      return option == wanted || option.substr(0, option.find('=')) == wanted;
    });
  };
  const std::vector<std::string_view> wanted = split_at_commas(pattern);
  return std::all_of(wanted.begin(), wanted.end(), [&](std::string_view one) {
    if (one.starts_with('+')) return there(one.substr(1));
    return one.starts_with("no") ? !there(one.substr(2)) : there(one);
  });
}

/// A list that begins with "no" names the types that are not wanted.
bool has_type(std::string_view type, std::string_view pattern) {
  const bool unwanted = pattern.starts_with("no");
  const std::vector<std::string_view> types = split_at_commas(pattern.substr(unwanted ? 2 : 0));
  return (std::find(types.begin(), types.end(), type) != types.end()) != unwanted;
}

class Findmnt : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("TARGET", words_, "a mount point or a source; or a source, then a mount point")
        ->group("Arguments");
    const auto text = [&](const char* name, std::string& value, const char* what,
                          const char* type) {
      app.add_option(name, value, what)->group(filter_group)->type_name(type);
    };
    text("-t,--types", types_, "only these file system types; \"no\" before them: all others",
         "TYPE,...");
    text("-O,--options", options_, "only mounts with these options", "OPTION,...");
    text("-S,--source", source_, "only what is mounted from there", "SOURCE");
    text("-M,--mountpoint", mountpoint_, "only what is mounted there", "PATH");
    text("-T,--target", guest_, "the mount that holds this path", "PATH");
    app.add_option("-N,--task,--pid", pid_, "the mount namespace of this process (default 1)")
        ->group(filter_group)
        ->type_name("PID");
    app.add_option("--mntns", mntns_, "this mount namespace")
        ->group(filter_group)
        ->type_name("INODE");
    app.add_flag("-A,--all", all_, "all mount namespaces")->group(filter_group);
    app.add_flag("-i,--invert", invert_, "those that do not match")->group(filter_group);
    app.add_flag("-f,--first-only", first_only_, "only the first")->group(filter_group);
    app.add_flag("-R,--submounts", submounts_, "what is mounted below, too")->group(filter_group);
    app.add_option("-o,--output", columns_,
                   fmt::format("columns: {}", fmt::join(mount_column_names(), " ")))
        ->group(format_group)
        ->type_name("COLUMN,...")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_flag("--output-all", all_columns_, "all columns")->group(format_group);
    app.add_flag("-l,--list", list_, "a list, not a tree")->group(format_group);
    app.add_flag("--tree", tree_, "a tree, also of what is chosen")->group(format_group);
    app.add_flag("-a,--ascii", format_.ascii, "draw the tree in ASCII")->group(format_group);
    app.add_flag("-r,--raw", raw_, "words, one blank between them")->group(format_group);
    app.add_flag("-P,--pairs", pairs_, "COLUMN=\"value\"")->group(format_group);
    app.add_flag("-J", json_, "as `findmnt -J` of a list; --json is the state document")
        ->group(format_group);
    app.add_flag("-v,--nofsroot", no_fsroot_, "no [/directory] behind a source")
        ->group(format_group);
    app.add_flag("-n,--noheadings", no_headings_, "no headings")->group(format_group);
    app.add_flag("-k,-u,--notruncate", ignored_, "")->group("");  // always
  }

  Result<void> run(Session& session) override {
    if (words_.size() > 2) {
      return usage_error("findmnt: '" + words_[2] + "' is too many: a source and a mount point");
    }
    VMSIGHT_TRY_VOID(choose_columns());
    VMSIGHT_TRY_VOID(choose_layout());
    session.common.headers &= !no_headings_;
    format_.table.headers = session.common.headers;
    format_.with_fsroot = !no_fsroot_;
    StateVerb verb;
    verb.rows = part_mounts;
    verb.options.parts = part_mounts | part_processes;
    verb.shown = part_mounts;
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [&](Output& out, const State& state, const Guest&) {
      print_mounts(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  Result<void> choose_columns() {
    if (all_columns_) {
      format_.columns.clear();
      for (const std::string_view name : mount_column_names()) {
        format_.columns.push_back(*mount_column(name));
      }
    }
    if (!columns_.empty()) format_.columns.clear();
    for (const std::string& name : columns_) {
      const auto column = mount_column(name);
      if (!column) {
        return usage_error("findmnt: unknown column '" + name + "'",
                           fmt::format("columns: {}", fmt::join(mount_column_names(), " ")));
      }
      format_.columns.push_back(*column);
    }
    return {};
  }

  Result<void> choose_layout() {
    if (int{raw_} + int{pairs_} + int{json_} + int{tree_} > 1 || (list_ && tree_)) {
      return usage_error("findmnt: only one of -r, -P, -J, -l and --tree");
    }
    const bool as_tree = tree_ || (!list_ && (submounts_ || !chooses()));
    format_.layout = raw_      ? MountLayout::raw
                     : pairs_  ? MountLayout::pairs
                     : json_   ? MountLayout::json
                     : as_tree ? MountLayout::tree
                               : MountLayout::list;
    return {};
  }

  bool chooses() const {
    return !words_.empty() || !types_.empty() || !options_.empty() || !source_.empty() ||
           !mountpoint_.empty() || !guest_.empty() || first_only_;
  }

  static bool has_source(const Mount& mount, std::string_view source) {
    return mount.source == source ||
           fmt::format("{}[{}]", known_text(mount.source), known_text(mount.root)) == source;
  }
  static std::string_view known_text(std::string_view text) {
    return text.data() == nullptr ? "" : text;
  }

  bool matches_words(const Mount& mount) const {
    if (words_.size() == 2) return has_source(mount, words_[0]) && mount.target == words_[1];
    return words_.empty() || mount.target == words_[0] || has_source(mount, words_[0]);
  }

  bool wanted(const Mount& mount) const {
    const bool match = matches_words(mount) && (types_.empty() || has_type(mount.fstype, types_)) &&
                       (options_.empty() || has_options(merged_options(mount), options_)) &&
                       (source_.empty() || has_source(mount, source_)) &&
                       (mountpoint_.empty() || mount.target == mountpoint_);
    return match != (invert_ && chooses());
  }

  Result<void> filter(State& state) {
    const bool mntns_given = mntns_.has_value();
    if (!mntns_ && !all_) {
      VMSIGHT_TRY(mntns_, namespace_of(state, pid_));
    }
    std::erase_if(state.mounts,
                  [this](const Mount& mount) { return mntns_ && mount.mntns != *mntns_; });
    const std::vector<Mount> below = submounts_ ? state.mounts : std::vector<Mount>();
    if (!guest_.empty()) keep_holder(state.mounts);
    std::erase_if(state.mounts, [this](const Mount& mount) { return !wanted(mount); });
    if (first_only_ && state.mounts.size() > 1) state.mounts.resize(1);
    if (submounts_) add_submounts(state.mounts, below);
    if (state.mounts.empty() && (chooses() || mntns_given)) {
      return Error{.code = ErrorCode::not_found,
                   .message = "findmnt: no such mount in the guest",
                   .hint = "`vmsight findmnt VM --all` shows those of all mount namespaces"};
    }
    return {};
  }

  /// Of the mounts whose mount point is the path or leads to it, the deepest, and of several there
  /// the one on top: the last.
  void keep_holder(std::vector<Mount>& mounts) const {
    const Mount* holder = nullptr;
    for (const Mount& mount : mounts) {
      const std::string_view at = mount.target;
      const bool leads =
          at == "/" || guest_ == at ||
          (guest_.size() > at.size() && guest_.starts_with(at) && guest_[at.size()] == '/');
      if (leads && (holder == nullptr || at.size() >= holder->target.size())) holder = &mount;
    }
    if (holder == nullptr) return mounts.clear();
    const Mount kept = *holder;
    mounts.assign(1, kept);
  }

  /// Each once, whatever circles a guest's parents form.
  static void add_submounts(std::vector<Mount>& mounts, const std::vector<Mount>& all) {
    std::unordered_multimap<std::uint64_t, const Mount*> children;
    std::unordered_set<std::uint64_t> seen;
    const auto key = [](std::uint64_t mntns, std::uint32_t id) { return mntns << 32 ^ id; };
    for (const Mount& mount : all) children.emplace(key(mount.mntns, mount.parent), &mount);
    for (const Mount& mount : mounts) seen.insert(key(mount.mntns, mount.id));
    for (std::size_t i = 0; i < mounts.size(); ++i) {
      const auto [first, last] = children.equal_range(key(mounts[i].mntns, mounts[i].id));
      for (auto child = first; child != last; ++child) {
        const Mount& mount = *child->second;
        if (seen.insert(key(mount.mntns, mount.id)).second) mounts.push_back(mount);
      }
    }
  }

  static Result<std::optional<std::uint64_t>> namespace_of(const State& state, std::int32_t pid) {
    for (const Process& process : state.processes) {
      if (process.pid == pid) return process.mntns;
    }
    return no_such_pid(pid);
  }

  std::vector<std::string> words_, columns_;
  std::string types_, options_, source_, mountpoint_, guest_;
  std::int32_t pid_ = 1;
  std::optional<std::uint64_t> mntns_;
  bool all_ = false, list_ = false, tree_ = false, invert_ = false, first_only_ = false,
       submounts_ = false, raw_ = false, pairs_ = false, json_ = false, no_fsroot_ = false,
       no_headings_ = false, all_columns_ = false, ignored_ = false;
  MountFormat format_;
};

}  // namespace

extern const VerbInfo findmnt_verb{
    .name = "findmnt",
    .group = "What is in the guest",
    .arguments = "VM [TARGET | SOURCE TARGET] [options]",
    .summary = "Mounts, of the namespace of PID 1 or of another",
    .examples =
        "  vmsight findmnt web1\n"
        "  vmsight findmnt web1 -l -t ext4,xfs -o TARGET,OPTIONS,PROPAGATION --all\n",
    .shows_records = true,
    .make = make_verb<Findmnt>,
};

}  // namespace vmsight
