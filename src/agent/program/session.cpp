#include "agent/program/session.h"

#include <algorithm>

namespace vmsight::agent {
namespace {

constexpr std::size_t hello_tail = sizeof(Hello) - offsetof(Hello, mark);

}  // namespace

void Session::received(std::size_t size) {
  in_size_ += size;
  find_hello();
  if (!greeted_ && !hello_here_) drop_noise();
}

/// Without a client that we know, only a mark is of interest: it may have begun.
void Session::drop_noise() {
  if (in_size_ >= sizeof(Mark)) drop(in_size_ - (sizeof(Mark) - 1));
}

/// The last mark wins: what came before it, and what was to be sent, is of a client that is gone.
void Session::find_hello() {
  const auto begin = reinterpret_cast<const std::uint8_t*>(in_.data());
  const auto end = begin + in_size_;
  const auto found = std::find_end(begin, end, hello_mark.begin(), hello_mark.end());
  if (found == end) return;
  drop(static_cast<std::size_t>(found - begin));
  hello_here_ = true;
  greeted_ = false;
  sent_ = out_size_ = 0;
}

void Session::drop(std::size_t size) {
  std::memmove(in_.data(), in_.data() + size, in_size_ - size);
  in_size_ -= size;
}

bool Session::step() {
  if (out_size_ > 0) return false;
  if (hello_here_) {
    if (in_size_ < hello_tail) return false;
    Hello hello;
    std::memcpy(&hello.mark, in_.data(), hello_tail);
    drop(hello_tail);
    hello_here_ = false;
    greeted_ = hello.version == version;
    welcome(hello);
    return true;
  }
  if (!greeted_ || in_size_ < sizeof(Request)) return false;
  const auto size = check_request();
  if (!size) {
    greeted_ = false;
    drop_noise();
    return false;
  }
  if (in_size_ < *size) return false;
  answer(peek<Request>(0));
  drop(*size);
  return true;
}

/// The size of the request that in_ begins with, as far as it is there; nullopt if it is none.
std::optional<std::size_t> Session::check_request() {
  const auto request = peek<Request>(0);
  if (request.magic != request_magic || request.id >= max_id || request.runs > max_runs) {
    return std::nullopt;
  }
  const std::size_t size = sizeof(Request) + request.runs * sizeof(Run);
  std::uint64_t bytes = 0;
  for (std::size_t at = sizeof(Request); at + sizeof(Run) <= std::min(size, in_size_);
       at += sizeof(Run)) {
    const auto run = peek<Run>(at);
    if (run.start >= max_address || run.size > max_bytes) return std::nullopt;
    bytes += run.size;
  }
  if (bytes > max_bytes) return std::nullopt;
  return size;
}

void Session::welcome(const Hello& hello) {
  Welcome words{.nonce = hello.nonce};
  words.error = static_cast<std::uint64_t>(memory_.open());
  static_assert(sizeof(Welcome) + max_ranges * sizeof(Range) <= max_answer);
  std::array<Range, max_ranges> ranges;
  const std::size_t count = words.error == 0 ? memory_.ranges(ranges) : 0;
  words.ranges = count;
  put(words);
  for (std::size_t i = 0; i < count; ++i) put(ranges[i]);
}

void Session::answer(const Request& request) {
  memory_.check();
  out_size_ = sizeof(Answer);
  for (std::size_t i = 0; i < request.runs; ++i) {
    const auto run = peek<Run>(sizeof(Request) + i * sizeof(Run));
    const std::span bytes = std::span(out_).subspan(out_size_ + sizeof(std::uint64_t), run.size);
    const std::uint64_t got = memory_.read(run.start, bytes);
    put(got);
    out_size_ += got;
  }
  const Answer head{.id = request.id, .runs = request.runs, .size = out_size_ - sizeof(Answer)};
  std::memcpy(out_.data(), &head, sizeof head);
}

void Session::sent(std::size_t size) {
  sent_ += size;
  if (sent_ == out_size_) sent_ = out_size_ = 0;
}

}  // namespace vmsight::agent
