// The vCPU threads of a VM in groups of ours, where they are frozen and thawed together.
//
//   /machine.slice/web1.scope                    where QEMU's threads are
//   /machine.slice/web1.scope/vmsight-PID-...    ours: a threaded group (v2), or one of the v1
//                                                freezer's, with the vCPU threads only
//
// A frozen thread stays frozen when its freezer dies, so only a guard (undo/guard.h) freezes, and the
// journal has the groups from before they are made until they are gone.
#pragma once

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/os.h"
#include "halt/cgroup.h"
#include "undo/journal.h"

namespace vmsight {

class Freezer {
 public:
  using Clock = std::chrono::steady_clock;

  /// By the first of these ways that works for these threads. Changes nothing yet. unsupported or
  /// permission, with the reason for each way.
  static Result<std::unique_ptr<Freezer>> prepare(const ProcessId& vm, std::span<const pid_t> tids,
                                                  std::span<const Freezing> ways,
                                                  const ProcessId& author);
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;
  ~Freezer() { static_cast<void>(leave()); }

  /// Makes the groups.
  Result<void> enter();
  /// Takes those in that are not there yet; whether there were such. not_found if one is in a
  /// group beside which there is none of ours: leave, and prepare anew.
  Result<bool> take_in(std::span<const pid_t> tids);
  /// All stand; timeout if one does not.
  Result<void> freeze(Clock::time_point deadline);
  Result<void> thaw();
  /// The threads run where they were before; the groups are gone.
  Result<void> leave();

  bool entered() const { return entered_; }

 private:
  struct Group {
    std::string parent, path;
    UniqueFd control, state;
  };
  Freezer(const Freezing& how, pid_t pid) : how_(how), pid_(pid) {}
  static Result<std::unique_ptr<Freezer>> prepare_one(const ProcessId& vm,
                                                      std::span<const pid_t> tids,
                                                      const Freezing& how, const ProcessId& author);
  Result<void> make(Group& group);
  Result<void> tell(std::string_view word);
  Group* group_beside(const std::string& parent);

  const Freezing how_;
  pid_t pid_;
  std::vector<Group> groups_;
  JournalEntry entry_;
  nlohmann::json change_;  // what undo_freezer() needs
  bool entered_ = false;
};

/// Whether prepare() would work; changes nothing.
Result<void> check_freezer(const ProcessId& vm, std::span<const pid_t> tids,
                           std::span<const Freezing> ways);

/// The vCPU threads in cgroups of ours.
extern const ChangeKind freezer_change;

/// Thaws the groups that such a change made, moves the threads back and removes the
/// groups. What is gone already is no error.
Result<void> undo_freezer(const nlohmann::json& change);

}  // namespace vmsight
