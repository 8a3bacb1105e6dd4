// A client of our own agent (src/agent).
#pragma once

#include <memory>

#include "agent/agent_memory.h"
#include "agent/agent_port.h"
#include "agent/program/protocol.h"

namespace vmsight {

class VmsightAgent final : public AgentMemory {
 public:
  using Milliseconds = AgentPort::Milliseconds;

  /// Connects and greets. unsupported if the VM has no such port, or the agent cannot read kcore
  /// or speaks another version; timeout if nobody answers.
  static Result<std::unique_ptr<VmsightAgent>> open(const VmInfo& info);
  /// Greets on this port. For tests.
  static Result<std::unique_ptr<VmsightAgent>> greet(
      AgentPort port, Milliseconds patience = AgentPort::answer_time);

  const std::vector<PhysRange>& ranges() const override { return ranges_; }
  Result<void> read(std::span<Run> runs) override;
  bool only_reads() const override { return true; }
  std::size_t max_run() const override { return request_bytes; }
  std::size_t max_batch() const override { return 4u << 20; }
  std::uint64_t calls() const override { return calls_; }

 private:
  /// The agent answers a request when it has read it all: smaller ones keep it and QEMU busy at the
  /// same time.
  static constexpr std::size_t request_bytes = 128u << 10;

  /// The runs of one request.
  struct Question {
    std::uint64_t id = 0;
    std::span<Run> runs;
  };
  explicit VmsightAgent(AgentPort port) : port_(std::move(port)) {}
  Result<void> greet(Milliseconds patience);
  std::vector<Question> split(std::span<Run> runs);
  Result<void> ask(std::span<const Question> questions);

  AgentPort port_;
  std::vector<PhysRange> ranges_;
  std::uint64_t last_id_ = 0, calls_ = 0;
  bool greeted_ = false;
};

}  // namespace vmsight
