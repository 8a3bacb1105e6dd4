// Which rules `vmsight watch` runs, and what can be said of them without a guest.
#pragma once

#include <string>
#include <vector>

#include "cli/verb.h"
#include "watch/guest_watch.h"

namespace vmsight {

struct RuleChoice {
  std::vector<std::string> wanted;  // files, directories, names of rules that ship; none: all
  std::vector<std::string> tags, disabled;
};

/// Reads the files. What is wrong in them is in the set's errors; usage or not_found if nothing can run.
Result<detect::WatchedRules> choose_rules(const RuleChoice& choice);
/// The same of rules that run already: bad_data, with all that is wrong, if anything is.
Result<detect::WatchedRules> choose_rules_again(const RuleChoice& choice);

/// What is wrong with a file or directory, a line each.
Result<void> check_rules(Session& session, const std::string& path);
void list_rules(Session& session, const detect::WatchedRules& rules);
/// Also of a rule that is not chosen. not_found.
Result<void> explain_rule(Session& session, const detect::RuleSet& set, const std::string& name);

}  // namespace vmsight
