// The agent's side of the protocol: bytes in, bytes out. Knows neither the port nor kcore, and
// allocates nothing: it is a part of a program of a megabyte.
#pragma once

#include <cstring>
#include <optional>
#include <span>

#include "agent/program/protocol.h"

namespace vmsight::agent {

/// The guest's memory.
class Memory {
 public:
  virtual ~Memory() = default;
  /// Looks at it anew, for a new client; 0 or errno.
  virtual int open() = 0;
  /// As many ranges of RAM as fit; returns their number.
  virtual std::size_t ranges(std::span<Range> into) = 0;
  /// Before the runs of each request.
  virtual void check() = 0;
  /// Copies what there is from `start` on; returns how many bytes.
  virtual std::size_t read(std::uint64_t start, std::span<std::byte> into) = 0;
};

class Session {
 public:
  explicit Session(Memory& memory) : memory_(memory) {}

  /// Where bytes from the host may be put; call received() with how many were. Empty while requests
  /// wait to be answered.
  std::span<std::byte> room() { return std::span(in_).subspan(in_size_); }
  void received(std::size_t size);

  /// Answers one request, if nothing is left to be sent and a whole one is there. False: nothing
  /// happened.
  bool step();

  std::span<const std::byte> to_send() const {
    return std::span(out_).first(out_size_).subspan(sent_);
  }
  void sent(std::size_t size);

 private:
  void find_hello();
  void drop(std::size_t size);
  void drop_noise();
  std::optional<std::size_t> check_request();
  void welcome(const Hello& hello);
  void answer(const Request& request);
  template <typename T>
  void put(const T& value) {
    std::memcpy(out_.data() + out_size_, &value, sizeof value);
    out_size_ += sizeof value;
  }
  template <typename T>
  T peek(std::size_t offset) const {
    T value;
    std::memcpy(&value, in_.data() + offset, sizeof value);
    return value;
  }

  Memory& memory_;
  bool greeted_ = false;     // a hello came, and only requests since
  bool hello_here_ = false;  // in_ begins with a mark
  std::size_t in_size_ = 0, out_size_ = 0, sent_ = 0;
  std::array<std::byte, 4 * max_request> in_;
  std::array<std::byte, max_answer> out_;
};

}  // namespace vmsight::agent
