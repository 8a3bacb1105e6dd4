// Guest-physical memory as an agent in the guest reads it, from its kernel's /proc/kcore.
#pragma once

#include <span>
#include <vector>

#include "vmsight/memory.h"

namespace vmsight {

class AgentMemory {
 public:
  struct Run {
    GuestPhys from;
    std::span<std::byte> into;  // at most max_run()
    std::size_t got = 0;        // bytes, from the start on; the guest's kernel shows no others
  };

  virtual ~AgentMemory() = default;

  /// What the guest's kernel shows as RAM. Ascending.
  virtual const std::vector<PhysRange>& ranges() const = 0;

  /// Asks for all runs before it reads the first answer. timeout if the agent (or the guest) does
  /// not answer, os if the connection broke, bad_data; after an error the next call begins anew.
  virtual Result<void> read(std::span<Run> runs) = 0;

  virtual std::size_t max_run() const = 0;
  /// Bytes that are well asked for at once: what may be under way when we are killed.
  virtual std::size_t max_batch() const = 0;
  /// Whether the agent does nothing but read, whatever it is asked. Then the connection to it may be held by anybody.
  virtual bool only_reads() const = 0;
  /// Questions asked so far.
  virtual std::uint64_t calls() const = 0;
};

}  // namespace vmsight
