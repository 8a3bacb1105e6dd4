#include "kernel/cache.h"

#include <fmt/format.h>

#include "kernel/bytes.h"

namespace vmsight {
namespace {

/// Files are found by the banner, which is known before anything else is.
std::string file_prefix(std::string_view banner) { return fmt::format("{:016x}-", fnv1a(banner)); }

bool is_hex(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == text.npos;
}

}  // namespace

KernelCache::KernelCache(const std::string& directory) {
  if (!directory.empty()) files_ = std::make_shared<CacheDirectory>(directory);
}

KernelCache::Found KernelCache::find(std::string_view banner) const {
  Found found;
  if (!files_) return found;
  auto names = files_->list(file_prefix(banner), kernel_file);
  if (!names) {
    found.note = "not used: " + names.error().message;
    return found;
  }
  for (const std::string& name : *names) {
    const auto text = files_->read(name);
    auto memo = text ? parse_memo(*text) : Result<KernelMemo>(text.error());
    if (memo && memo->banner == banner) {
      found.memos.push_back(*std::move(memo));
    } else {
      found.note = "rebuilt: " + name + ": " +
                   (memo ? std::string("it is of another kernel") : memo.error().message);
    }
  }
  return found;
}

Result<void> KernelCache::save(const KernelMemo& memo) const {
  if (!files_ || !is_hex(memo.build_id)) return {};
  const std::string name = file_prefix(memo.banner) + memo.build_id + std::string(kernel_file);
  return files_->replace(name, format_memo(memo));
}

std::optional<KernelPlace> KernelCache::find_place(std::string_view vm) const {
  if (!files_) return std::nullopt;
  const auto text = files_->read(fmt::format("{}{}", vm, place_file));
  if (!text) return std::nullopt;
  const auto place = parse_place(*text);
  return place ? std::optional(*place) : std::nullopt;
}

Result<void> KernelCache::save_place(std::string_view vm, const KernelPlace& place) const {
  if (!files_) return {};
  return files_->replace(fmt::format("{}{}", vm, place_file), format_place(place));
}

}  // namespace vmsight
