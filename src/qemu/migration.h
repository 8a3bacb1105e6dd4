// QEMU's migration into a file, as a snapshot: settings are changed for it and put back, and the
// guest runs again afterwards.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qemu/monitor_session.h"
#include "qemu/save_file.h"
#include "vmsight/vm.h"

namespace vmsight {

enum class MigrationKind {
  stopped,     // the guest is stopped first; pages as they come
  mapped_ram,  // each page at its own place in the file; the state at its end
  background,  // by write protection: the state at its start, and the guest runs on
};

class Migration {
 public:
  /// Tries whether QEMU knows and this host allows what is needed. unsupported, with QEMU's words.
  /// `vm` must outlive it. The guest is not disturbed.
  static Result<Migration> open(const Vm& vm, std::shared_ptr<MonitorSession> session,
                                MigrationKind kind, std::chrono::milliseconds max_halt);

  /// Writes the guest's RAM (and devices) into the file. When this returns no migration is under
  /// way, QEMU's settings are as they were, and the guest runs, as it must have before. Should we
  /// end in its midst, or leave the guest halted for longer than `max_halt`, the guard of the
  /// session sees to the same.
  Result<void> run(const SaveFile& into, std::uint64_t bytes);

 private:
  Migration(const Vm& vm, std::shared_ptr<MonitorSession> session, MigrationKind kind,
            std::chrono::milliseconds max_halt)
      : vm_(vm), session_(std::move(session)), kind_(kind), max_halt_(max_halt) {}

  bool is_background() const { return kind_ == MigrationKind::background; }
  Result<void> learn_capabilities();
  Result<void> set_capabilities(bool ours);
  Result<void> run_guarded(const SaveFile& into, std::uint64_t bytes);
  Result<void> resume();
  Result<void> start(const SaveFile& into);
  Result<void> wait(std::uint64_t bytes);
  Result<void> finish();

  const Vm& vm_;
  std::shared_ptr<MonitorSession> session_;
  MigrationKind kind_;
  std::chrono::milliseconds max_halt_;
  bool has_files_ = false;                           // "file:" is a place to migrate to
  nlohmann::json ours_ = nlohmann::json::array();    // capabilities that we change ...
  nlohmann::json theirs_ = nlohmann::json::array();  // ... and what they were
  nlohmann::json limit_;                             // max-bandwidth, as it was
};

/// How long the guest stood, by the STOP and RESUME events among these. A stop that has not ended
/// counts up to the last event.
std::uint64_t pause_of(std::span<const QmpClient::Event> events);

/// A migration to a file, and the settings that it needs.
extern const ChangeKind migration_change;

}  // namespace vmsight
