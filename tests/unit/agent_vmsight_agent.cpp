#include "agent/vmsight_agent.h"

#include <gtest/gtest.h>

#include "support/agent_peer.h"

namespace vmsight::agent_vmsight_agent_test {
namespace {

using namespace std::chrono_literals;
using test::AgentPeer;
using test::hear;
using test::say;

template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

agent::Hello hear_hello(int socket) {
  const std::string text = hear(socket);
  agent::Hello hello;
  EXPECT_GE(text.size(), sizeof hello);
  std::memcpy(&hello, text.data(), std::min(text.size(), sizeof hello));
  return hello;
}

std::string welcome(const agent::Hello& to, std::uint64_t ranges = 1) {
  std::string text = bytes_of(agent::Welcome{.nonce = to.nonce, .ranges = ranges});
  for (std::uint64_t i = 0; i < ranges; ++i) text += bytes_of(agent::Range{i << 20, 1 << 20});
  return text;
}

/// A peer that greets properly and then says this to the first request.
Result<std::vector<std::byte>> read_from(const std::string& answer, std::size_t size = 8) {
  AgentPeer peer([&](int socket) {
    say(socket, welcome(hear_hello(socket)));
    hear(socket);
    say(socket, answer);
  });
  VMSIGHT_TRY(auto agent, VmsightAgent::greet(peer.port(), 5s));
  std::vector<std::byte> bytes(size);
  AgentMemory::Run run{GuestPhys(0), bytes};
  VMSIGHT_TRY_VOID(agent->read(std::span(&run, 1)));
  bytes.resize(run.got);
  return bytes;
}

TEST(VmsightAgent, ReadsWhatThereIs) {
  AgentPeer peer(test::play_vmsight_agent);
  auto agent = VmsightAgent::greet(peer.port());
  ASSERT_TRUE(agent) << agent.error().message;
  ASSERT_EQ((*agent)->ranges().size(), 2u);
  EXPECT_EQ((*agent)->ranges()[1].start, GuestPhys(1ull << 32));
  // Far more than a socket holds: questions and answers pass each other.
  std::vector<std::byte> bytes(32u << 20);
  std::vector<AgentMemory::Run> runs;
  for (std::size_t at = 0; at < bytes.size(); at += 4096) {
    runs.push_back({GuestPhys((1ull << 32) + at % (4u << 20)), std::span(bytes).subspan(at, 4096)});
  }
  runs.push_back({GuestPhys(0x9ff00), std::span(bytes).first(4096)});
  runs.push_back({GuestPhys(0xa0000), std::span(bytes).first(4096)});
  for (int view = 0; view < 2; ++view) {
    auto done = (*agent)->read(runs);
    ASSERT_TRUE(done) << done.error().message;
    for (std::size_t i = 0; i < runs.size() - 2; ++i) {
      ASSERT_EQ(runs[i].got, 4096u);
      if (i == 0) continue;  // the last runs write there too
      ASSERT_EQ(runs[i].into[77], test::pattern(runs[i].from.raw() + 77));
    }
    EXPECT_EQ(runs[runs.size() - 2].got, 256u);
    EXPECT_EQ(runs.back().got, 0u);
  }
}

TEST(VmsightAgent, SkipsWhatWasMeantForOthers) {
  AgentPeer peer([](int socket) {
    const agent::Hello hello = hear_hello(socket);
    agent::Hello other = hello;
    other.nonce[1] ^= 1;
    say(socket, std::string(100'001, 'x') + welcome(other) + std::string(3, '\xa9'));
    say(socket, bytes_of(agent::Answer{.id = 1, .runs = 1, .size = 16}) + welcome(hello));
    hear(socket);
    say(socket,
        bytes_of(agent::Answer{.id = 1, .runs = 1, .size = 16}) + bytes_of(8ull) + "12345678");
  });
  auto agent = VmsightAgent::greet(peer.port());
  ASSERT_TRUE(agent) << agent.error().message;
  std::array<std::byte, 8> bytes{};
  AgentMemory::Run run{GuestPhys(0), bytes};
  ASSERT_TRUE((*agent)->read(std::span(&run, 1)));
  EXPECT_EQ(run.got, 8u);
  EXPECT_EQ(bytes[7], std::byte{'8'});
}

TEST(VmsightAgent, RefusesForgedAnswers) {
  const auto answer = [](agent::Answer head, std::uint64_t got) {
    return bytes_of(head) + bytes_of(got) + std::string(64, 'x');
  };
  const agent::Answer good{.id = 1, .runs = 1, .size = 16};
  ASSERT_TRUE(read_from(answer(good, 8)));
  for (const auto& [what, text] : std::vector<std::pair<std::string, std::string>>{
           {"magic", answer({.magic = 1, .id = 1, .runs = 1, .size = 16}, 8)},
           {"id", answer({.id = 2, .runs = 1, .size = 16}, 8)},
           {"runs", answer({.id = 1, .runs = 2, .size = 16}, 8)},
           {"size", answer({.id = 1, .runs = 1, .size = ~0ull}, 8)},
           {"longer", answer({.id = 1, .runs = 1, .size = 17}, 8)},
           {"shorter", answer({.id = 1, .runs = 1, .size = 15}, 8)},
           {"too much", answer({.id = 1, .runs = 1, .size = 17}, 9)},
           {"far too much", answer({.id = 1, .runs = 1, .size = 7}, ~0ull)}}) {
    const auto read = read_from(text);
    ASSERT_FALSE(read) << what;
    EXPECT_EQ(read.error().code, ErrorCode::bad_data) << what;
  }
}

TEST(VmsightAgent, AShortAnswerAndAnEndIsAnError) {
  const std::string whole =
      bytes_of(agent::Answer{.id = 1, .runs = 1, .size = 16}) + bytes_of(8ull) + "12345678";
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto read = read_from(whole.substr(0, size));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ErrorCode::os);
  }
}

TEST(VmsightAgent, RefusesForgedWelcomes) {
  const auto greet = [](const std::function<std::string(const agent::Hello&)>& answer) {
    AgentPeer peer([&](int socket) { say(socket, answer(hear_hello(socket))); });
    return VmsightAgent::greet(peer.port(), 5s);
  };
  const auto code = [&](auto answer) {
    const auto agent = greet(answer);
    return agent ? "none" : std::to_string(static_cast<int>(agent.error().code));
  };
  const auto name = [](ErrorCode wanted) { return std::to_string(static_cast<int>(wanted)); };
  EXPECT_EQ(code([](const auto& h) { return welcome(h, 5); }), "none");
  EXPECT_EQ(
      code([](const auto& h) { return bytes_of(agent::Welcome{.nonce = h.nonce, .version = 2}); }),
      name(ErrorCode::unsupported));
  EXPECT_EQ(
      code([](const auto& h) { return bytes_of(agent::Welcome{.nonce = h.nonce, .error = 1}); }),
      name(ErrorCode::unsupported));
  EXPECT_EQ(code([](const auto& h) {
              return bytes_of(agent::Welcome{.nonce = h.nonce, .ranges = 1ull << 60});
            }),
            name(ErrorCode::bad_data));
  for (const agent::Range& range : {agent::Range{0, 0}, agent::Range{~0ull, 1},
                                    agent::Range{0, ~0ull}, agent::Range{0x1000, 8}}) {
    EXPECT_EQ(code([&](const auto& h) {
                return bytes_of(agent::Welcome{.nonce = h.nonce, .ranges = 2}) +
                       bytes_of(agent::Range{0x1000, 0x1000}) + bytes_of(range);
              }),
              name(ErrorCode::bad_data));
  }
}

TEST(VmsightAgent, SilenceIsATimeout) {
  AgentPeer peer([](int socket) {
    while (!hear(socket).empty()) {
    }
  });
  const auto agent = VmsightAgent::greet(peer.port(), 50ms);
  ASSERT_FALSE(agent);
  EXPECT_EQ(agent.error().code, ErrorCode::timeout);
  EXPECT_NE(agent.error().hint.find("vmsight-agent"), std::string::npos);
}

TEST(VmsightAgent, EndlessNoiseIsATimeout) {
  AgentPeer peer([](int socket) {
    const std::string noise(60'000, '\xa9');
    while (::send(socket, noise.data(), noise.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  const auto agent = VmsightAgent::greet(peer.port(), 200ms);
  ASSERT_FALSE(agent);
  EXPECT_EQ(agent.error().code, ErrorCode::timeout);
}

TEST(VmsightAgent, BeginsAnewAfterAFailure) {
  AgentPeer peer([](int socket) {
    say(socket, welcome(hear_hello(socket)));
    hear(socket);
    say(socket, std::string(40, 'x'));
    test::play_vmsight_agent(socket);
  });
  auto agent = VmsightAgent::greet(peer.port());
  ASSERT_TRUE(agent);
  std::array<std::byte, 8> bytes{};
  AgentMemory::Run run{GuestPhys(0x1000), bytes};
  EXPECT_FALSE((*agent)->read(std::span(&run, 1)));
  const auto again = (*agent)->read(std::span(&run, 1));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(bytes[1], test::pattern(0x1001));
}

}  // namespace
}  // namespace vmsight::agent_vmsight_agent_test
