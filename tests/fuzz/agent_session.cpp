// Any bytes on the agent's port, in pieces of any size; it must then still hear the next client.
#include <cstdlib>
#include <memory>

#include "support/agent_peer.h"
#include "support/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  test::FuzzInput input(data, size);
  test::PatternMemory memory;
  const auto session = std::make_unique<agent::Session>(memory);
  bool answered = false;
  const auto give = [&](std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const std::size_t some = std::min(bytes.size(), session->room().size());
      if (some == 0) std::abort();
      std::memcpy(session->room().data(), bytes.data(), some);
      session->received(some);
      bytes = bytes.subspan(some);
      while (session->step()) {
        if (session->to_send().size() > agent::max_answer) std::abort();
        answered = true;
        session->sent(session->to_send().size());
      }
    }
  };
  while (!input.empty()) give(input.take_bytes(1 + input.take<std::uint8_t>()));
  answered = false;
  const agent::Hello hello;
  give(std::as_bytes(std::span(&hello, 1)));
  if (!answered) std::abort();
  return 0;
}
