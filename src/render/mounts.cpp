#include "render/mounts.h"

#include <map>
#include <set>
#include <unordered_set>

#include "render/format.h"

namespace vmsight {
namespace {

/// "/dev/vda1[/subvolume]": with the root of a bind mount, as findmnt shows it.
std::string source_text(const Mount& mount) {
  std::string source = known(mount.source);
  if (!mount.root.empty() && mount.root != "/") source += fmt::format("[{}]", mount.root);
  return source;
}

/// Walks each namespace's mounts from its roots. Guest data: parents may form cycles, which no
/// root reaches; those mounts are printed at the end, each once, without recursion.
class MountTree {
 public:
  explicit MountTree(const std::vector<Mount>& mounts) {
    std::set<Id> ids;
    for (const Mount& mount : mounts) ids.emplace(mount.mntns, mount.id);
    for (const Mount& mount : mounts) {
      const Id parent{mount.mntns, mount.parent};
      const bool child = mount.parent != mount.id && ids.contains(parent);
      (child ? children_[parent] : roots_).push_back(&mount);
    }
    for (const Mount& mount : mounts) roots_.push_back(&mount);
  }

  template <typename Visit>
  void walk(Visit visit) {
    for (const Mount* root : roots_) {
      std::vector<Step> stack = {{root, "", ""}};
      while (!stack.empty()) {
        const Step step = std::move(stack.back());
        stack.pop_back();
        if (!seen_.insert(step.mount).second) continue;
        visit(*step.mount, step.lead);
        push_children(stack, step);
      }
    }
  }

 private:
  using Id = std::pair<std::uint64_t, std::uint32_t>;
  struct Step {
    const Mount* mount;
    std::string lead, below;  // drawn before this mount, and before its children
  };
  static constexpr std::size_t max_lead = 120;

  void push_children(std::vector<Step>& stack, const Step& step) const {
    const auto found = children_.find({step.mount->mntns, step.mount->id});
    if (found == children_.end()) return;
    const auto& list = found->second;
    const std::string base = step.below.size() > max_lead ? "" : step.below;
    for (std::size_t i = list.size(); i-- > 0;) {
      const bool last = i + 1 == list.size();
      stack.push_back({list[i], base + (last ? "└─" : "├─"), base + (last ? "  " : "│ ")});
    }
  }

  std::map<Id, std::vector<const Mount*>> children_;
  std::vector<const Mount*> roots_;
  std::unordered_set<const Mount*> seen_;
};

}  // namespace

void print_mounts(Output& out, const State& state, MountLayout layout,
                  const TableOptions& options) {
  Table table({{"TARGET"}, {"SOURCE"}, {"FSTYPE"}, {"OPTIONS"}});
  const auto add = [&](const Mount& mount, const std::string& lead) {
    table.row({lead + known(mount.target), source_text(mount), known(mount.fstype),
               known(mount.options)});
  };
  if (layout == MountLayout::tree) {
    MountTree(state.mounts).walk(add);
  } else {
    for (const Mount& mount : state.mounts) add(mount, "");
  }
  table.print(out, options);
}

}  // namespace vmsight
