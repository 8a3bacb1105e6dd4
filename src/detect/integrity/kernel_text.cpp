// kernel-text: the kernel's code against what it was when this build was seen first.
#include <algorithm>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "detect/integrity/runtime_constants.h"
#include "detect/integrity/text_baseline.h"
#include "detect/integrity/text_patches.h"
#include "kernel/bytes.h"

namespace vmsight {
namespace {

constexpr std::size_t max_changes = 1U << 20;
constexpr std::size_t max_functions = 200;  // findings

/// What decides how a kernel patches itself at boot: the features of its CPU, which hypervisor it
/// thinks it is on, and how large its hash tables are.
std::uint64_t variant_of(Look& look) {
  std::string words;
  const auto add = [&](std::uint64_t word) { words.append(fmt::format("{:x} ", word)); };
  const auto cpu = look.kernel.symbol("boot_cpu_data");
  const auto features = look.kernel.member("cpuinfo_x86", "x86_capability");
  if (cpu && features) {
    for (std::uint32_t i = 0; i < std::min(features->count, 64U); ++i)
      add(look.reader.u32(*cpu + features->offset + i * 4));
  }
  look.reader.clear_fault();
  // Of the size of RAM; the kernel shifts by it in its code.
  if (const auto shift = look.kernel.symbol("d_hash_shift")) add(look.reader.u32(*shift));
  look.reader.clear_fault();
  const auto operations = look.kernel.symbol("pv_ops");
  const auto size = look.kernel.type_size("paravirt_patch_template");
  for (std::uint64_t i = 0; operations && size && i < std::min<std::uint64_t>(*size, 4096);
       i += 8) {
    const GuestVirt target = look.reader.pointer(*operations + i);
    if (look.places.in_kernel_text(target)) add(target - look.places.text_start());
  }
  look.reader.clear_fault();
  return fnv1a(words);
}

Result<TextBaseline> read_text(Look& look) {
  TextBaseline now{.build_id = look.kernel.build_id(),
                   .variant = variant_of(look),
                   .base = look.places.text_start(),
                   .text = {}};
  now.text.resize(look.places.text_end() - look.places.text_start());
  if (look.reader.copy(now.base, now.text) != now.text.size()) return unreadable("kernel text");
  return now;
}

/// not_found if it is to be taken now.
Result<TextBaseline> find_baseline(Look& look, const std::string& path, const TextBaseline& now) {
  VMSIGHT_TRY(TextBaseline baseline, load_baseline(*look.options.files, path));
  const bool same = baseline.build_id == now.build_id && baseline.text.size() == now.text.size();
  if (!same) {
    return Error{ErrorCode::bad_data,
                 fmt::format("{} is of another build: {}", path, baseline.build_id)};
  }
  if (baseline.variant != now.variant) {
    return Error{ErrorCode::bad_data,
                 fmt::format("{} is of this build on a CPU with other features", path)};
  }
  return baseline;
}

void tell_change(Look& look, std::uint64_t offset, std::uint64_t bytes, const TextBaseline& before,
                 const TextBaseline& now) {
  const GuestVirt at = now.base + offset;
  const std::size_t shown = std::min<std::size_t>(bytes, 8);
  std::string was, is;
  for (std::size_t i = 0; i < shown; ++i) {
    was += fmt::format(" {:02x}", static_cast<unsigned>(before.text[offset + i]));
    is += fmt::format(" {:02x}", static_cast<unsigned>(now.text[offset + i]));
  }
  look.find({.what = fmt::format("{}: {} changed; now{}{}, in the baseline{}", look.places.name(at),
                                 bytes == 1 ? "1 byte" : fmt::format("{} bytes", bytes), is,
                                 bytes > shown ? "..." : "", was),
             .object = fmt::format("text {}", look.places.name(at)),
             .sources = {"kernel text", "baseline"},
             .sureness = Sureness::certain,
             .address = at});
}

void compare_with_baseline(Look& look, const TextBaseline& before, const TextBaseline& now) {
  const TextPatches patches = TextPatches::read(look.kernel, look.reader, look.places);
  if (!patches.missing().empty())
    look.note = fmt::format("not readable, so they explain nothing: {}", patches.missing());
  std::size_t told = 0;
  RuntimeConstants constants(look.kernel, look.reader);
  std::uint64_t explained = 0;  // up to here, by a trampoline or a constant
  for (const TextChange& change : compare_text(before, now, max_changes)) {
    std::uint64_t first = 0, count = 0;
    for (std::uint64_t i = change.offset; i < change.offset + change.size; ++i) {
      const GuestVirt at = now.base + i;
      if (i < explained || patches.explains(at)) continue;
      const auto trampoline = patches.trampoline_end(look.reader, at);
      const auto constant = constants.end_of(before.text, now.text, i);
      if (trampoline || constant) {
        explained = trampoline ? *trampoline - now.base : *constant;
        continue;
      }
      if (count++ == 0) first = i;
    }
    if (count != 0 && told++ < max_functions) tell_change(look, first, count, before, now);
  }
  if (told > max_functions) look.note = fmt::format("{} more changes", told - max_functions);
}

Result<void> check_kernel_text(Look& look) {
  if (look.kernel.build_id().empty() && look.options.baseline_file.empty())
    return lacks("build-id, by which its baseline is found");
  VMSIGHT_TRY(const TextBaseline now, read_text(look));
  look.looked_at = now.text.size();
  const bool in_cache = look.options.baseline_file.empty();
  if (in_cache && look.options.cache_directory.empty())
    return Error{ErrorCode::unsupported, "there is no cache for a baseline: give --baseline FILE"};
  const std::string path =
      in_cache ? baseline_path(look.options.cache_directory, now) : look.options.baseline_file;
  const auto remembered = look.memory.baselines.find(path);
  if (remembered != look.memory.baselines.end() && remembered->second.build_id == now.build_id) {
    compare_with_baseline(look, remembered->second, now);
    return {};
  }
  auto baseline = find_baseline(look, path, now);
  if (!baseline && baseline.error().code == ErrorCode::not_found) {
    if (auto saved = save_baseline(*look.options.files, path, now); !saved)
      return Error{ErrorCode::unsupported, saved.error().message};
    if (in_cache) look.options.files->prune(look.options.cache_directory, text_suffix);
    look.note = "the baseline was taken now: from here on changes are seen";
    look.memory.baselines[path] = now;
    return {};
  }
  // Another look would not mend it.
  if (!baseline) return Error{ErrorCode::unsupported, baseline.error().message};
  compare_with_baseline(look, look.memory.baselines[path] = *std::move(baseline), now);
  return {};
}

}  // namespace

extern const IntegrityCheck kernel_text_check{
    .info = {.name = "kernel-text",
             .what = "code of the kernel is as in its baseline, but for what the kernel patches",
             .family = "kernel"},
    .run = check_kernel_text,
    .doubtful_during = KernelChanges::code,
};

}  // namespace vmsight
