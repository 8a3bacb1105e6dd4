#include "agent/vmsight_agent.h"

#include <sys/random.h>
#include <cerrno>

#include "agent/agent_answers.h"

namespace vmsight {
namespace {

using Taken = AgentPort::Taken;

constexpr std::string_view agent_hint =
    "start vmsight-agent in the guest; one that is paused or reboots does not answer";

template <typename T>
void append(std::string& text, const T& value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

Result<std::unique_ptr<VmsightAgent>> VmsightAgent::open(const VmInfo& info) {
  VMSIGHT_TRY(AgentPort port, AgentPort::connect(info, agent::port_name));
  return greet(std::move(port));
}

Result<std::unique_ptr<VmsightAgent>> VmsightAgent::greet(AgentPort port, Milliseconds patience) {
  std::unique_ptr<VmsightAgent> agent(new VmsightAgent(std::move(port)));
  VMSIGHT_TRY_VOID(agent->greet(patience));
  return agent;
}

Result<void> VmsightAgent::greet(Milliseconds patience) {
  agent::Hello hello;
  if (::getrandom(hello.nonce.data(), sizeof hello.nonce, 0) != sizeof hello.nonce) {
    return os_error(errno, "get random bytes");
  }
  std::string out;
  append(out, hello);
  auto done = port_.exchange(
      out, [&](std::string_view came) { return take_welcome(came, hello.nonce, ranges_); },
      patience);
  greeted_ = done.has_value();
  if (!done && done.error().code == ErrorCode::timeout) {
    return port_.silence("vmsight-agent", std::string(agent_hint));
  }
  return done;
}

std::vector<VmsightAgent::Question> VmsightAgent::split(std::span<Run> runs) {
  std::vector<Question> questions;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    VMSIGHT_CHECK(runs[i].into.size() <= request_bytes);
    runs[i].got = 0;
    bytes += runs[i].into.size();
    if (questions.empty() || bytes > request_bytes ||
        questions.back().runs.size() == agent::max_runs) {
      last_id_ = (last_id_ + 1) % agent::max_id;
      questions.push_back({last_id_, runs.subspan(i, 0)});
      bytes = runs[i].into.size();
    }
    Question& last = questions.back();
    last.runs = std::span(last.runs.data(), last.runs.size() + 1);
  }
  return questions;
}

Result<void> VmsightAgent::read(std::span<Run> runs) {
  if (runs.empty()) return {};
  if (!greeted_) VMSIGHT_TRY_VOID(greet(AgentPort::answer_time));
  auto done = ask(split(runs));
  if (done) return {};
  greeted_ = false;
  if (done.error().code == ErrorCode::timeout) {
    return port_.silence("vmsight-agent", std::string(agent_hint));
  }
  return done;
}

Result<void> VmsightAgent::ask(std::span<const Question> questions) {
  std::string out;
  for (const Question& question : questions) {
    append(out, agent::Request{.id = question.id, .runs = question.runs.size()});
    for (const Run& run : question.runs) append(out, agent::Run{run.from.raw(), run.into.size()});
  }
  calls_ += questions.size();
  auto next = questions.begin();
  AnswerReader reader(next->id, next->runs);
  return port_.exchange(
      out,
      [&](std::string_view came) -> Result<Taken> {
        std::string_view rest = came;
        while (true) {
          VMSIGHT_TRY(const bool whole, reader.take_from(rest));
          if (whole && ++next != questions.end()) reader = AnswerReader(next->id, next->runs);
          if (!whole || next == questions.end()) {
            return Taken{came.size() - rest.size(), next == questions.end()};
          }
        }
      },
      AgentPort::answer_time);
}

}  // namespace vmsight
