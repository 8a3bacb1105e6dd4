// A client of the stock qemu-guest-agent, which opens, seeks and reads files for whoever has its
// port: here /proc/kcore. Protocol: QEMU's docs/interop/qemu-ga-ref; a JSON object a line, answers
// in order.
//
// A file that was opened stays open in the agent until it is closed, also if we are killed: so a
// guard process closes it then (undo/undo_guard.h).
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/agent_memory.h"
#include "agent/agent_port.h"
#include "agent/program/kcore.h"
#include "undo/undo_guard.h"

namespace vmsight {

/// Lines to the agent and from it.
class GuestAgent {
 public:
  using Milliseconds = AgentPort::Milliseconds;
  static constexpr char port_name[] = "org.qemu.guest_agent.0";

  struct Command {
    std::string name;
    nlohmann::json arguments = nlohmann::json::object();
  };

  explicit GuestAgent(AgentPort port) : port_(std::move(port)) {}

  /// Drops what was meant for a client before us. timeout if nobody answers.
  Result<void> sync(Milliseconds patience = AgentPort::answer_time);

  /// Sends all commands at once and gives the answer to each, in order: `take(index, answer)`, whose
  /// first error ends it. `answer` is the value of "return" or, if the agent refused, an error
  /// (unsupported, in its words). Syncs first if an exchange before this one failed.
  using TakeAnswer = std::function<Result<void>(std::size_t index, Result<nlohmann::json> answer)>;
  Result<void> execute_all(std::span<const Command> commands, const TakeAnswer& take,
                           Milliseconds patience = AgentPort::answer_time);
  Result<nlohmann::json> execute(Command command, Milliseconds patience = AgentPort::answer_time);

 private:
  static constexpr std::size_t max_line = 1u << 20;

  Result<AgentPort::Taken> take_sync(std::string_view came, std::uint64_t id);

  AgentPort port_;
  bool synced_ = false;
};

/// The guest's memory through it.
class GuestAgentMemory final : public AgentMemory {
 public:
  /// Opens kcore in the guest. unsupported if the VM has no such port, the agent's file commands are
  /// disabled, or kcore is not for reading; timeout if nobody answers.
  static Result<std::unique_ptr<GuestAgentMemory>> open(const VmInfo& info);
  /// Without a guard process. For tests.
  static Result<std::unique_ptr<GuestAgentMemory>> open(AgentPort port);
  ~GuestAgentMemory() override;

  const std::vector<PhysRange>& ranges() const override { return ranges_; }
  Result<void> read(std::span<Run> runs) override;
  /// It executes what it is asked to, in the guest.
  bool only_reads() const override { return false; }
  std::size_t max_run() const override { return 64u << 10; }
  std::size_t max_batch() const override { return 1u << 20; }
  std::uint64_t calls() const override { return calls_; }

 private:
  explicit GuestAgentMemory(AgentPort port) : agent_(std::move(port)) {}
  static Result<std::unique_ptr<GuestAgentMemory>> open(AgentPort port, const VmInfo* info);
  Result<void> check_commands();
  Result<void> begin();
  Result<void> open_kcore();
  void forget_file();
  Result<std::vector<std::byte>> read_head(std::size_t size);
  Result<void> load_segments();
  Result<bool> ask(std::span<Run> runs);
  std::vector<GuestAgent::Command> prologue(std::uint64_t first) const;
  GuestAgent::Command seek(std::uint64_t offset) const;
  GuestAgent::Command read_command(std::size_t size) const;

  GuestAgent agent_;
  std::optional<ProcessId> vm_;         // where a guard shall close the file
  std::optional<std::int64_t> handle_;  // of the agent's kcore; none after it was started anew
  std::optional<UndoGuard> guard_;
  std::vector<std::byte> header_;                    // of kcore, when segments_ were read
  std::chrono::steady_clock::time_point checked_{};  // when it was last the same
  std::uint64_t last_end_ = 0;                       // where in kcore the last read ended
  std::vector<agent::Segment> segments_;
  std::vector<PhysRange> ranges_;
  std::uint64_t calls_ = 0;
};

/// The bytes of a base64 text; nullopt if it is none, or more than fit. Returns how many.
std::optional<std::size_t> decode_base64(std::string_view text, std::span<std::byte> into);

/// The kcore that the agent has open. Payload: its handle.
extern const ChangeKind guest_file_change;

}  // namespace vmsight
