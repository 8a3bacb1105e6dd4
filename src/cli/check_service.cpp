#include "cli/check_service.h"

#include <fmt/format.h>

#include "base/text.h"

namespace vmsight {

CheckService::CheckService(std::string cache, std::string file)
    : cache_(std::move(cache)), file_(std::move(file)) {
  if (cache_.empty()) return;
  for (const std::string_view suffix : {text_suffix, modules_suffix}) files_->prune(cache_, suffix);
}

Result<std::string> CheckService::serve(std::string_view what, std::string_view text) {
  if (what == "traps") {
    const std::size_t end = std::min(text.find(' '), text.size());
    const auto pid = parse_whole<pid_t>(text.substr(0, end));
    const auto start = parse_whole<std::uint64_t>(text.substr(std::min(end + 1, text.size())));
    if (!pid || !start) return Error{ErrorCode::usage, "that is no VM"};
    VmInfo vm;
    vm.pid = *pid;
    vm.start_time = *start;
    return pack_traps(read_own_traps(vm));
  }
  // The path ends with a zero, which no path has.
  const std::size_t end = std::min(text.find('\0'), text.size());
  const std::string path(text.substr(0, end));
  const bool writes = what == "replace" && end != text.size();
  if (!is_ours(path) || (writes ? !may_write(path) : what != "read"))
    return Error{ErrorCode::permission, fmt::format("the front does not open \"{}\"", path)};
  if (!writes) return files_->read(path);
  if (path == file_ || !path.ends_with(modules_suffix)) {
    // What a kernel's text was is kept once, and what took us over cannot rewrite it.
    const auto before = files_->read(path);
    if (before || before.error().code != ErrorCode::not_found)
      return Error{ErrorCode::permission, path + " is there already"};
  }
  VMSIGHT_TRY_VOID(files_->replace(path, text.substr(end + 1)));
  return std::string();
}

bool CheckService::is_ours(const std::string& path) const {
  if (!file_.empty()) return path == file_ || path == file_ + std::string(modules_suffix);
  return is_baseline_path(cache_, path);
}

bool CheckService::may_write(const std::string& path) {
  if (written_.contains(path)) return true;
  return written_.size() < max_written && written_.insert(path).second;
}

Result<std::string> AskedBaselineFiles::read(const std::string& path) { return ask_("read", path); }

Result<void> AskedBaselineFiles::replace(const std::string& path, std::string_view text) {
  std::string question = path + '\0';
  question += text;
  VMSIGHT_TRY(const std::string done, ask_("replace", question));
  return {};
}

/// CheckService did it already: who asks may have been taken over, and would make room for what he forged.
void AskedBaselineFiles::prune(const std::string&, std::string_view) {}

std::vector<OwnTrap> asked_traps(const AskService& ask, const VmInfo& vm) {
  const auto said = ask("traps", fmt::format("{} {}", vm.pid, vm.start_time));
  if (!said) return {};
  auto traps = unpack_traps(*said);
  return traps ? *std::move(traps) : std::vector<OwnTrap>();
}

}  // namespace vmsight
