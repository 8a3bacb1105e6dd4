// The eBPF program in the host's kernel: loaded for one VM, gone with us.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>

#include "probe/kvm/shared.h"
#include "vmsight/result.h"

namespace vmsight::kvm {

class Program {
 public:
  /// permission if eBPF may not be used, unsupported if this kernel's KVM cannot be watched; with
  /// the reason and a hint.
  /// Not attached it sees nothing: to measure what a trap costs without it.
  static Result<std::unique_ptr<Program>> load(const guest& guest, bool attached = true);
  virtual ~Program() = default;

  virtual Result<void> set_trap(std::uint64_t next_rip, const trap& trap) = 0;
  virtual void remove_trap(std::uint64_t next_rip) = 0;
  /// Those in user programs, by the host's address of the trap. The exits that they make are looked at once this
  /// was called.
  virtual Result<void> watch_hypercalls() = 0;
  virtual Result<void> set_file_trap(std::uint64_t host, const trap& trap) = 0;
  virtual void remove_file_trap(std::uint64_t host) = 0;
  /// Its counters begin at 0.
  virtual Result<void> set_probe(std::uint32_t index, const probe& probe) = 0;

  virtual counters count(std::uint32_t index) const = 0;
  virtual durations duration(std::uint32_t index) const = 0;
  virtual strangers foreign() const = 0;
  /// Traps that the host's kernel may not have shown us, at most: one thread interrupted another at
  /// the wrong time.
  enum class Of { kernel, user };
  virtual std::uint64_t missed(Of whom) const = 0;
  /// Whether both ways in which KVM handles a trap are watched.
  virtual bool has_fastpath() const = 0;

  /// Hands out events until there are none or `most` were handed out; waits for the first.
  using Sink = std::function<void(std::span<const std::byte> event)>;
  virtual Result<std::size_t> read(std::chrono::milliseconds patience, std::size_t most,
                                   const Sink& sink) = 0;
};

/// What load() would say of this host, without loading anything.
Result<void> check_host();

}  // namespace vmsight::kvm
