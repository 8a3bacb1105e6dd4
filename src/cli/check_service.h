// The files of `vmsight check`: its baselines, and the journal that says which traps are vmsight's own. It runs in the
// sandbox, and the front opens them.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attach/front_service.h"
#include "detect/integrity/own_traps.h"
#include "detect/integrity/text_baseline.h"

namespace vmsight {

class CheckService final : public FrontService {
 public:
  /// `cache`: a directory, or ""; `file`: what --baseline names, or "". No other file is opened. Of the cache's the oldest
  /// go now, if they are many.
  CheckService(std::string cache, std::string file);
  Result<std::string> serve(std::string_view what, std::string_view text) override;

 private:
  /// A guest has one kernel, and the modules of one boot.
  static constexpr std::size_t max_written = 2;

  bool is_ours(const std::string& path) const;
  bool may_write(const std::string& path);

  std::string cache_, file_;
  std::set<std::string> written_;
  std::shared_ptr<BaselineFiles> files_ = own_baseline_files();
};

using AskService = std::function<Result<std::string>(std::string_view what, std::string_view text)>;

/// By CheckService.
class AskedBaselineFiles final : public BaselineFiles {
 public:
  explicit AskedBaselineFiles(AskService ask) : ask_(std::move(ask)) {}
  Result<std::string> read(const std::string& path) override;
  Result<void> replace(const std::string& path, std::string_view text) override;
  void prune(const std::string& directory, std::string_view suffix) override;

 private:
  AskService ask_;
};

/// read_own_traps() by CheckService; none if it cannot tell.
std::vector<OwnTrap> asked_traps(const AskService& ask, const VmInfo& vm);

}  // namespace vmsight
