// Anything from the agents in a guest: our own one's welcome and answers, qemu-guest-agent's base64,
// and the kcore that it shows.
#include <array>
#include <string_view>
#include <vector>

#include "agent/agent_answers.h"
#include "agent/guest_agent.h"
#include "agent/program/kcore.h"
#include "support/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto bytes = std::as_bytes(std::span(data, size));

  std::vector<PhysRange> ranges;
  const auto taken = take_welcome(text, agent::Nonce{1, 2}, ranges);
  if (taken && taken->used > size) std::abort();
  if (ranges.size() > agent::max_ranges) std::abort();

  std::array<std::byte, 64> memory{};
  std::vector<AgentMemory::Run> runs{{GuestPhys(0), std::span(memory).first(8)},
                                     {GuestPhys(8), std::span(memory).subspan(8, 56)}};
  AnswerReader reader(1, runs);
  std::string_view rest;
  for (const std::size_t end : {size / 2, size}) {
    const std::size_t used =
        static_cast<std::size_t>(rest.data() == nullptr ? 0 : rest.data() - text.data());
    rest = text.substr(used, end - used);
    const auto done = reader.take_from(rest);
    if (!done || *done) break;
  }

  std::vector<std::byte> decoded(size);
  static_cast<void>(decode_base64(text, decoded));
  static_cast<void>(decode_base64(text, std::span(decoded).first(size / 3)));

  static_cast<void>(agent::kcore_head_size(bytes));
  std::array<agent::Segment, 8> segments;
  const std::size_t count = agent::find_segments(bytes, segments);
  for (std::size_t i = 0; i + 1 < count; ++i) {
    if (segments[i].start + segments[i].size > segments[i + 1].start) std::abort();
  }
  static_cast<void>(agent::find_segment(std::span(segments).first(count), size));
  return 0;
}
