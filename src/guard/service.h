// What a guard does for its owner (see undo/guard.h); one class a service, one guard a service.
#pragma once

#include <poll.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "host/process.h"
#include "undo/guard_protocol.h"

namespace vmsight {

using GuardClock = std::chrono::steady_clock;

/// What a service is started with.
struct ServiceSetup {
  ProcessId vm;
  ProcessId owner;  // who started the guard
  nlohmann::json config;
  std::vector<UniqueFd> descriptors;  // guard_extra_fd and those behind it
};

struct GuardQuestion {
  GuardRequest request{};
  std::uint64_t argument = 0;
  nlohmann::json payload;
};

class Service {
 public:
  virtual ~Service() = default;
  virtual Result<std::uint64_t> serve(const GuardQuestion& question) = 0;
  /// Adds the descriptors whose events it must see.
  virtual void watch(std::vector<pollfd>& events) const { static_cast<void>(events); }
  /// Some of them came. An error ends the guard.
  virtual Result<void> on_events() { return {}; }
  /// When on_deadline() must be called.
  virtual std::optional<GuardClock::time_point> deadline() const { return std::nullopt; }
  virtual void on_deadline() {}
  /// Something is left half done that only the end of this process undoes.
  virtual bool must_end() const { return false; }
  /// Undoes everything. The owner or the VM is gone.
  virtual void end() = 0;
};

using MakeService = Result<std::unique_ptr<Service>> (*)(ServiceSetup&& setup);

// The services, each in the file of its name.

/// "halt", "uffd", "fork", "patch": see there.
Result<std::unique_ptr<Service>> make_halt_service(ServiceSetup&& setup);
Result<std::unique_ptr<Service>> make_uffd_service(ServiceSetup&& setup);
Result<std::unique_ptr<Service>> make_fork_service(ServiceSetup&& setup);
Result<std::unique_ptr<Service>> make_patch_service(ServiceSetup&& setup);
/// "monitor": the connection to QMP.
Result<std::unique_ptr<Service>> make_monitor_service(ServiceSetup&& setup);
/// "undo": one change that somebody else makes.
Result<std::unique_ptr<Service>> make_undo_service(ServiceSetup&& setup);

/// A request that a service does not know.
inline Error unknown_request() {
  return {.code = ErrorCode::usage, .message = "ask the guard: it does not do that"};
}

}  // namespace vmsight
