#include "agent/program/session.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/agent_peer.h"

namespace vmsight::agent::agent_session_test {
namespace {

using test::pattern;
using test::PatternMemory;

template <typename T>
void append(std::string& text, const T& value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string hello(std::uint64_t nonce) {
  std::string text;
  append(text, Hello{.nonce = {nonce, ~nonce}});
  return text;
}

std::string request(std::uint64_t id, std::vector<agent::Run> runs) {
  std::string text;
  append(text, Request{.id = id, .runs = runs.size()});
  for (const agent::Run& run : runs) append(text, run);
  return text;
}

class AgentSession : public testing::Test {
 protected:
  /// Everything is given in pieces of this size; returns what was answered.
  std::string give(std::string_view text, std::size_t piece = 4096) {
    std::string answered;
    while (!text.empty()) {
      const std::size_t size = std::min({piece, text.size(), session->room().size()});
      std::memcpy(session->room().data(), text.data(), size);
      session->received(size);
      text.remove_prefix(size);
      while (session->step()) {
        const auto bytes = session->to_send();
        answered.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        session->sent(bytes.size());
      }
    }
    return answered;
  }
  static Welcome welcome_in(const std::string& text) {
    Welcome words;
    EXPECT_GE(text.size(), sizeof words);
    if (text.size() >= sizeof words) std::memcpy(&words, text.data(), sizeof words);
    return words;
  }

  PatternMemory memory;
  std::unique_ptr<Session> session = std::make_unique<Session>(memory);
};

std::string expected_answer(std::uint64_t id, const agent::Run& run, std::uint64_t got) {
  std::string text;
  append(text, Answer{.id = id, .runs = 1, .size = 8 + got});
  append(text, got);
  for (std::uint64_t i = 0; i < got; ++i) text += static_cast<char>(pattern(run.start + i));
  return text;
}

TEST_F(AgentSession, GreetsWithItsRanges) {
  for (const std::size_t piece : {1, 7, 4096}) {
    const std::string text = give(hello(17), piece);
    const Welcome words = welcome_in(text);
    EXPECT_EQ(words.mark, welcome_mark);
    EXPECT_EQ(words.nonce[0], 17u);
    EXPECT_EQ(words.error, 0u);
    EXPECT_EQ(words.ranges, 2u);
    EXPECT_EQ(text.size(), sizeof(Welcome) + 2 * sizeof(Range));
  }
}

TEST_F(AgentSession, SaysWhyItCannot) {
  memory.error = 13;
  const Welcome words = welcome_in(give(hello(1)));
  EXPECT_EQ(words.error, 13u);
  EXPECT_EQ(words.ranges, 0u);
}

TEST_F(AgentSession, AnswersInOrder) {
  const agent::Run first{0x1000, 4096}, second{0x9ff00, 4096};  // the second ends at the hole
  for (const std::size_t piece : {1, 13, 65536}) {
    const std::string text = give(hello(1) + request(5, {first}) + request(6, {second}), piece);
    const std::size_t greeting = sizeof(Welcome) + 2 * sizeof(Range);
    EXPECT_EQ(text.substr(greeting),
              expected_answer(5, first, 4096) + expected_answer(6, second, 256));
  }
}

TEST_F(AgentSession, AnswersTheLargest) {
  give(hello(1));
  const std::string text = give(request(1, {{1ull << 32, max_bytes}}));
  EXPECT_EQ(text, expected_answer(1, {1ull << 32, max_bytes}, max_bytes));
  const std::vector<agent::Run> many(max_runs, agent::Run{0x2000, 8});
  EXPECT_EQ(give(request(2, many)).size(), sizeof(Answer) + max_runs * 16);
}

TEST_F(AgentSession, SaysNothingBeforeAHello) {
  EXPECT_EQ(give(request(1, {{0, 8}})), "");
  EXPECT_EQ(give(std::string(1'000'000, '\xff')), "");
  EXPECT_EQ(welcome_in(give(hello(3))).nonce[0], 3u);
}

TEST_F(AgentSession, RefusesBadRequestsUntilTheNextHello) {
  const std::vector<std::string> bad{
      std::string(64, '\0'),
      request(max_id, {{0, 8}}),
      request(1, {{0, max_bytes + 1}}),
      request(1, {{0, max_bytes}, {0, 1}}),
      request(1, {{max_address, 8}}),
      request(1, std::vector<agent::Run>(max_runs + 1, agent::Run{0, 8})),
  };
  for (const std::string& text : bad) {
    give(hello(1));
    EXPECT_EQ(give(text), "");
    EXPECT_EQ(give(request(1, {{0, 8}})), "") << "deaf now";
  }
  EXPECT_EQ(welcome_in(give(hello(2))).nonce[0], 2u);
}

TEST_F(AgentSession, DoesNotServeAnotherVersion) {
  Hello other{.version = version + 1, .nonce = {4, 4}};
  std::string text;
  append(text, other);
  EXPECT_EQ(welcome_in(give(text)).version, version);
  EXPECT_EQ(give(request(1, {{0, 8}})), "");
}

TEST_F(AgentSession, ANewClientIsHeardWhereverTheOldOneStopped) {
  const std::string old = hello(1) + request(1, {{0x1000, 4096}, {0x3000, 64}});
  for (std::size_t cut = 0; cut <= old.size(); ++cut) {
    for (const std::size_t piece : {3, 65536}) {
      give(old.substr(0, cut), piece);
      const std::string text = give(hello(1000 + cut) + request(9, {{0x1000, 8}}), piece);
      const Nonce nonce{1000 + cut, ~(1000 + cut)};
      std::string begin;
      append(begin, welcome_mark);
      append(begin, nonce);
      const auto at = text.rfind(begin);
      ASSERT_NE(at, std::string::npos) << "cut at " << cut;
      EXPECT_EQ(text.substr(at + sizeof(Welcome) + 2 * sizeof(Range)),
                expected_answer(9, {0x1000, 8}, 8));
    }
  }
}

TEST_F(AgentSession, DropsWhatAnOldClientDidNotTake) {
  give(hello(1));
  const std::string text = request(1, {{0x1000, 4096}}) + request(2, {{0x2000, 4096}});
  std::memcpy(session->room().data(), text.data(), text.size());
  session->received(text.size());
  ASSERT_TRUE(session->step());
  session->sent(100);
  const Welcome words = welcome_in(give(hello(8)));
  EXPECT_EQ(words.mark, welcome_mark);
  EXPECT_EQ(words.nonce[0], 8u);
}

TEST_F(AgentSession, LooksForPluggedMemoryBeforeEachRequest) {
  give(hello(1) + request(1, {{0, 8}, {8, 8}}) + request(2, {{0, 8}}));
  EXPECT_EQ(memory.checks, 2);
}

}  // namespace
}  // namespace vmsight::agent::agent_session_test
