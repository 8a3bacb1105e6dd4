// What `vmsight watch` does at an alarm besides telling it, where the rule says so and the command allows it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "watch/guest_watch.h"

namespace vmsight {

struct ActionOptions {
  std::vector<std::string> allowed;  // "pause", "snapshot", "run", "deny"; a case needs no leave
  std::string cases;                 // directory of cases and snapshots; "": there are none
  bool case_core = false;            // each case has a core
};

class WatchActions {
 public:
  /// One case or snapshot fills a disk by so much; a rule that is wrong all the time must not fill it.
  static constexpr unsigned most_cases = 100,
                            most_snapshots = 8;  // of a rule, while one watch runs

  /// Makes the directory, for its owner alone. usage for a word that is none.
  static Result<WatchActions> create(ActionOptions options);

  bool may_deny() const { return allowed_.contains(detect::Action::Kind::deny); }

  /// The rule's actions that will not be taken, a sentence each: to be said before the first alarm.
  std::vector<std::string> refusals(const detect::Rule& rule) const;

  /// Before the alarm is told: pauses the guest, and adds to the alarm what is run for it, and where its
  /// case will be. `note` gets what went wrong.
  using Note = std::function<void(std::string_view)>;
  void before(detect::Alarm& alarm, const detect::Rule& rule, detect::GuestWatch& guest,
              const Note& note);
  /// Afterwards: writes the case, which takes longer.
  void after(const detect::Alarm& alarm, detect::GuestWatch& guest, const Note& note);

 private:
  /// Why the action is not taken; "" if it is.
  std::string refusal(const detect::Action& action) const;
  bool takes(const detect::Rule& rule, detect::Action::Kind kind) const;
  bool may_have_one_more(const detect::Rule& rule, std::string_view what, unsigned most,
                         const Note& note);
  void add_snapshot(detect::Alarm& alarm, detect::GuestWatch& guest, const std::string& path) const;

  ActionOptions options_;
  std::string program_;  // our own, which takes snapshots
  std::set<detect::Action::Kind> allowed_;
  std::map<std::string, unsigned> taken_;  // "case RULE", "snapshot RULE"
  std::string case_;                       // of the alarm that is being told; "": it has none
  unsigned number_ = 0;
};

}  // namespace vmsight
