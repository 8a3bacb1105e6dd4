// module-text: the code of loaded modules against what it was when each was seen first.
//
// What a kernel patches of a module while it runs is what it patches of itself (text_patches.h): by
// the module's own jump labels, static calls and lock prefixes, by function tracing, and by kprobes.
#include <algorithm>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "detect/integrity/integrity_memory.h"
#include "detect/integrity/module_baseline.h"
#include "detect/integrity/text_patches.h"
#include "kernel/bytes.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_module_code = 64U << 20, max_all_code = 192U << 20;
constexpr std::size_t max_told_changes = 200;
constexpr std::uint32_t module_is_live = 0;  // MODULE_STATE_LIVE

/// What tells this boot from all others: where the kernel was moved to, and a number that it drew for
/// its first task.
std::string boot_of(Look& look) {
  const auto task = look.kernel.symbol("init_task");
  const auto canary = look.kernel.member("task_struct", "stack_canary");
  const std::uint64_t drawn = task && canary ? look.reader.value(*task, *canary) : 0;
  look.reader.clear_fault();
  return fmt::format("{}-{:016x}", look.kernel.build_id(),
                     fnv1a(fmt::format("{:x} {:x} {:x}", look.places.text_start().raw(),
                                       look.kernel.page_offset().raw(), drawn)));
}

class LoadedCode {
 public:
  explicit LoadedCode(Look& look)
      : look_(look),
        state_(look.kernel.member("module", "state")),
        node_(look.kernel.member("module", "mkobj.kobj.sd")),
        id_(look.kernel.member("kernfs_node", "id")) {}

  /// Modules that are being loaded are left out: their code is still made.
  Result<std::vector<ModuleCode>> read() {
    std::vector<ModuleCode> all;
    std::uint64_t bytes = 0;
    for (const LoadedModule& module : look_.places.modules()) {
      if (module.text.empty() || !is_live(module)) continue;
      const LoadedModule::Range& text = module.text.front();
      if (text.size > max_module_code || (bytes += text.size) > max_all_code)
        return Error{ErrorCode::bad_data, "modules claim more code than any kernel has"};
      ModuleCode code{module.name, load_of(module), text.start, {}};
      code.code.resize(text.size);
      if (look_.reader.copy(text.start, code.code) != text.size)
        return unreadable(fmt::format("the code of module {}", module.name));
      all.push_back(std::move(code));
    }
    return all;
  }

 private:
  bool is_live(const LoadedModule& module) {
    const bool live = state_ && look_.reader.value(module.at, *state_) == module_is_live;
    look_.reader.clear_fault();
    return live;
  }
  /// Of its folder in sysfs, which the kernel numbers anew.
  std::uint64_t load_of(const LoadedModule& module) {
    if (!node_ || !id_) return module.at.raw();
    const GuestVirt folder(look_.reader.value(module.at, *node_));
    const std::uint64_t id = look_.reader.value(folder, *id_);
    const bool known = look_.reader.ok();
    look_.reader.clear_fault();
    return known ? id : module.at.raw();
  }

  Look& look_;
  std::optional<Member> state_, node_, id_;
};

std::string place_in(Look& look, const ModuleCode& module, GuestVirt at) {
  const auto place = look.kernel.locate(at);
  if (place && place->module == module.name)
    return fmt::format("{}+{:#x} [{}]", place->name, place->offset, module.name);
  return fmt::format("{:#x} [{}]", at - module.start, module.name);
}

std::string in_hex(std::span<const std::byte> code) {
  std::string text;
  for (const std::byte byte : code.first(std::min<std::size_t>(code.size(), 8)))
    text += fmt::format(" {:02x}", static_cast<unsigned>(byte));
  return text;
}

void tell_change(Look& look, const ModuleCode& was, const ModuleCode& is, std::size_t from,
                 std::size_t size) {
  const std::string place = place_in(look, is, is.start + from);
  look.find({.what = fmt::format("{}: {} changed; now{}, when it was loaded{}", place,
                                 size == 1 ? "1 byte" : fmt::format("{} bytes", size),
                                 in_hex(std::span(is.code).subspan(from, size)),
                                 in_hex(std::span(was.code).subspan(from, size))),
             .object = fmt::format("text {}", place),
             .sources = {"module text", "baseline"},
             .sureness = Sureness::certain,
             .address = is.start + from});
}

/// Runs of bytes that differ, and that no table of the kernel explains.
void compare_module_code(Look& look, const ModuleCode& was, const ModuleCode& is,
                         const TextPatches& patches) {
  GuestVirt explained;  // up to here, by a trampoline
  const auto differs = [&](std::size_t i) {
    const GuestVirt at = is.start + i;
    if (was.code[i] == is.code[i] || at < explained || patches.explains(at)) return false;
    const auto end = patches.trampoline_end(look.reader, at);
    if (end) explained = *end;
    return !end;
  };
  for (std::size_t i = 0; i < is.code.size(); ++i) {
    if (!differs(i)) continue;
    const std::size_t from = i;
    while (i < is.code.size() && differs(i)) ++i;
    if (look.findings.size() < max_told_changes) tell_change(look, was, is, from, i - from);
  }
}

/// Of the modules in the baseline those that are still loaded, and the new ones; whether any came or went.
bool bring_up_to_date(std::vector<ModuleCode>& known, const std::vector<ModuleCode>& now,
                      std::size_t& fresh) {
  const auto is_in = [](const std::vector<ModuleCode>& list, const ModuleCode& module) {
    return std::ranges::any_of(list, [&](const auto& one) { return one.is_same_load(module); });
  };
  const std::size_t gone =
      std::erase_if(known, [&](const ModuleCode& module) { return !is_in(now, module); });
  fresh = 0;
  for (const ModuleCode& module : now) {
    if (is_in(known, module)) continue;
    known.push_back(module);
    ++fresh;
  }
  return gone != 0 || fresh != 0;
}

Result<void> compare_all(Look& look, const std::vector<ModuleCode>& known,
                         const std::vector<ModuleCode>& now) {
  std::optional<TextPatches> patches;  // only read if something differs
  for (const ModuleCode& is : now) {
    const auto was =
        std::ranges::find_if(known, [&](const ModuleCode& one) { return one.is_same_load(is); });
    if (was == known.end() || was->code == is.code) continue;
    if (!patches) patches = TextPatches::read(look.kernel, look.reader, look.places);
    compare_module_code(look, *was, is, *patches);
  }
  if (patches && !patches->missing().empty())
    look.note = fmt::format("not readable, so they explain nothing: {}", patches->missing());
  return {};
}

Result<void> check_module_text(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  VMSIGHT_TRY(const std::vector<ModuleCode> now, LoadedCode(look).read());
  for (const ModuleCode& module : now) look.looked_at += module.code.size();
  TextBaseline baseline{.build_id = boot_of(look), .base = look.places.text_start(), .text = {}};
  const std::string& file = look.options.baseline_file;
  const std::string path =
      file.empty() ? baseline_path(look.options.cache_directory, baseline, modules_suffix)
                   : file + std::string(modules_suffix);
  const bool has_place = !file.empty() || !look.options.cache_directory.empty();
  TextBaseline& remembered = look.memory.baselines[path];
  if (remembered.build_id != baseline.build_id) {
    auto loaded = has_place ? load_baseline(*look.options.files, path)
                            : Result<TextBaseline>(Error{ErrorCode::not_found, ""});
    // That of another boot is of no use.
    const bool usable = loaded && loaded->build_id == baseline.build_id;
    if (!usable && !loaded && loaded.error().code == ErrorCode::permission) return loaded.error();
    remembered = usable ? *std::move(loaded) : baseline;
    if (!usable) remembered.text = pack_modules({});
  }
  VMSIGHT_TRY(std::vector<ModuleCode> known, unpack_modules(remembered.text));
  VMSIGHT_TRY_VOID(compare_all(look, known, now));
  std::size_t fresh = 0;
  if (!bring_up_to_date(known, now, fresh)) return {};
  remembered.text = pack_modules(known);
  if (fresh != 0)
    look.note =
        fmt::format("the baseline of {} module{} was taken now", fresh, fresh == 1 ? "" : "s");
  if (!has_place) {
    look.note = "there is no cache for a baseline: it is remembered only while this runs";
  } else if (auto saved = save_baseline(*look.options.files, path, remembered); !saved) {
    return Error{ErrorCode::unsupported, saved.error().message};
  }
  if (file.empty() && has_place)
    look.options.files->prune(look.options.cache_directory, modules_suffix);
  return {};
}

}  // namespace

extern const IntegrityCheck module_text_check{
    .info = {.name = "module-text",
             .what = "code of modules is as when it was loaded, but for what the kernel patches",
             .family = "kernel"},
    .run = check_module_text,
    .doubtful_during = KernelChanges::code,
};

}  // namespace vmsight
