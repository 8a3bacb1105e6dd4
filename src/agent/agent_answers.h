// What our agent says, taken as it comes from its port. It may say anything.
#pragma once

#include "agent/agent_memory.h"
#include "agent/agent_port.h"
#include "agent/program/protocol.h"

namespace vmsight {

/// For AgentPort::exchange: drops what was meant for a client before us, up to the welcome with our
/// nonce. unsupported if the agent speaks another version or cannot read the guest's memory.
Result<AgentPort::Taken> take_welcome(std::string_view came, const agent::Nonce& nonce,
                                      std::vector<PhysRange>& ranges);

/// The answer to one request, which was for these runs.
class AnswerReader {
 public:
  AnswerReader(std::uint64_t id, std::span<AgentMemory::Run> runs) : id_(id), runs_(runs) {}

  /// Uses up what it can of `came`, whole runs; true when the last one is there. bad_data.
  Result<bool> take_from(std::string_view& came);

 private:
  std::uint64_t id_;
  std::span<AgentMemory::Run> runs_;  // not yet there
  std::uint64_t left_ = 0;            // bytes of the answer
  bool begun_ = false;
};

}  // namespace vmsight
