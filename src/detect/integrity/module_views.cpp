// modules: who is in the list of modules, in sysfs (module_kset) and in the tree by which the
// kernel finds the module of an address (mod_tree). The list has all: a module is put on it first
// and taken off it last.
#include <map>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "state/lists.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_seen_modules = 1U << 14;
constexpr std::uint32_t state_live = 0;  // MODULE_STATE_LIVE

struct ModuleSeen {
  bool list = false, sysfs = false, tree = false;
};
using Modules = std::map<GuestVirt, ModuleSeen>;

Result<void> read_module_list(Look& look, Modules& into) {
  Members members(look.kernel);
  const GuestVirt head = members.symbol("modules");
  const Offset link = members.offset("module", "list");
  VMSIGHT_TRY_VOID(members.check());
  std::size_t count = 0;
  const bool whole = walk_list(look.reader, head, [&](GuestVirt node) {
    if (++count > max_seen_modules) return look.reader.set_fault(node);
    into[node - link].list = true;
  });
  return whole ? Result<void>() : unreadable("the list of modules");
}

/// A module that is built in has an entry there, and no struct module.
Result<void> read_module_sysfs(Look& look, Modules& into) {
  Members members(look.kernel);
  const GuestVirt kset = members.symbol("module_kset");
  const Offset list = members.offset("kset", "list"), entry = members.offset("kobject", "entry");
  const Offset object = members.offset("module_kobject", "kobj");
  const Offset module = members.offset("module_kobject", "mod");
  VMSIGHT_TRY_VOID(members.check());
  const GuestVirt set = look.reader.pointer(kset);
  std::size_t count = 0;
  const bool whole = walk_list(look.reader, set + list, [&](GuestVirt node) {
    if (++count > max_seen_modules) return look.reader.set_fault(node);
    const GuestVirt of = look.reader.pointer(node - entry - object + module);
    if (look.reader.ok() && of != GuestVirt()) into[of].sysfs = true;
  });
  return whole ? Result<void>() : unreadable("module_kset");
}

/// A latch tree is two red-black trees, of which readers use the one that the sequence count's
/// lowest bit names.
Result<void> read_module_tree(Look& look, Modules& into) {
  Members members(look.kernel);
  const GuestVirt root = members.symbol("mod_tree");
  const Offset trees = members.offset("latch_tree_root", "tree");
  const Offset sequence = members.offset("latch_tree_root", "seq");
  const Offset node = members.offset("mod_tree_node", "node");
  const Offset module = members.offset("mod_tree_node", "mod");
  const Offset left = members.offset("rb_node", "rb_left");
  const Offset right = members.offset("rb_node", "rb_right");
  const std::uint32_t node_size = members.size("rb_node");
  VMSIGHT_TRY_VOID(members.check());
  const std::uint32_t which = look.reader.u32(root + sequence) & 1;
  std::vector<GuestVirt> left_over{look.reader.pointer(root + trees + which * 8)};
  std::size_t count = 0;
  while (!left_over.empty() && look.reader.ok()) {
    const GuestVirt at = left_over.back();
    left_over.pop_back();
    if (at == GuestVirt()) continue;
    if (++count > max_seen_modules) return unreadable("mod_tree (it has no end)");
    const GuestVirt of = look.reader.pointer(at - which * node_size - node + module);
    left_over.push_back(look.reader.pointer(at + left));
    left_over.push_back(look.reader.pointer(at + right));
    if (look.reader.ok()) into[of].tree = true;
  }
  return look.reader.ok() ? Result<void>() : unreadable("mod_tree");
}

std::string name_of(Look& look, GuestVirt module) {
  const auto name = look.kernel.member("module", "name");
  std::array<char, 56> buffer;
  std::string text(name ? look.reader.c_string(module + name->offset, buffer) : "");
  if (!look.reader.ok() || text.empty()) text = fmt::format("{:#x}", module.raw());
  look.reader.clear_fault();
  return text;
}

void compare_module(Look& look, GuestVirt module, const ModuleSeen& seen, bool has_sysfs,
                    bool has_tree) {
  Finding finding{.sources = {}, .sureness = Sureness::certain, .address = module};
  if (seen.list) finding.sources.push_back("modules");
  if (seen.sysfs) finding.sources.push_back("module_kset");
  if (seen.tree) finding.sources.push_back("mod_tree");
  if (!seen.list) {
    finding.what = fmt::format("module {} is not in the list of modules", name_of(look, module));
  } else {
    const auto state = look.kernel.member("module", "state");
    const bool is_live = state && look.reader.u32(module + state->offset) == state_live;
    look.reader.clear_fault();
    if (!is_live) return;  // being loaded or unloaded
    if (has_sysfs && !seen.sysfs)
      finding.what = fmt::format("module {} is not in /sys/module", name_of(look, module));
    else if (has_tree && !seen.tree)
      finding.what =
          fmt::format("module {} is not in the tree of module addresses", name_of(look, module));
    else
      return;
    finding.sureness = Sureness::likely;
  }
  finding.object = fmt::format("module {}", name_of(look, module));
  look.find(std::move(finding));
}

Result<void> check_modules(Look& look) {
  Modules modules;
  VMSIGHT_TRY_VOID(read_module_list(look, modules));
  look.looked_at = modules.size();
  const auto add = [&](const Result<void>& done) {
    if (!done) look.note.append(look.note.empty() ? "" : "; ").append(done.error().message);
    look.reader.clear_fault();
    return done.has_value();
  };
  Modules with = modules;
  const bool has_sysfs = add(read_module_sysfs(look, with));
  if (has_sysfs) modules = with;
  with = modules;
  const bool has_tree = add(read_module_tree(look, with));
  if (has_tree) modules = with;
  if (!has_sysfs && !has_tree) return Error{ErrorCode::unsupported, look.note};
  for (const auto& [module, seen] : modules)
    compare_module(look, module, seen, has_sysfs, has_tree);
  return {};
}

}  // namespace

extern const IntegrityCheck modules_check{
    .info = {.name = "modules",
             .what = "the list of modules, /sys/module and the tree of addresses agree",
             .family = "kernel"},
    .run = check_modules,
};

}  // namespace vmsight
