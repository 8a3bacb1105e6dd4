#include "agent/agent_answers.h"

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmsight {
namespace {

using Taken = AgentPort::Taken;

template <typename T>
T take(std::string_view& text) {
  T value;
  std::memcpy(&value, text.data(), sizeof value);
  text.remove_prefix(sizeof value);
  return value;
}

Error bad_answer(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("read from vmsight-agent: {}", what)};
}

}  // namespace

Result<Taken> take_welcome(std::string_view came, const agent::Nonce& nonce,
                           std::vector<PhysRange>& ranges) {
  std::string ours(reinterpret_cast<const char*>(agent::welcome_mark.data()),
                   agent::welcome_mark.size());
  ours.append(reinterpret_cast<const char*>(&nonce), sizeof nonce);
  const auto at = came.find(ours);
  if (at == std::string_view::npos)
    return Taken{came.size() - std::min(came.size(), ours.size() - 1)};
  std::string_view rest = came.substr(at);
  if (rest.size() < sizeof(agent::Welcome)) return Taken{at};
  const auto welcome = take<agent::Welcome>(rest);
  if (welcome.version != agent::version) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("vmsight-agent speaks version {} of the protocol, not {}",
                                        welcome.version, agent::version),
                 .hint = "install the agent of this vmsight's version in the guest"};
  }
  if (welcome.error != 0) {
    const auto reason = welcome.error < 4096 ? static_cast<int>(welcome.error) : EIO;
    return Error{.code = ErrorCode::unsupported,
                 .message = os_error(reason, "vmsight-agent: open the guest's /proc/kcore").message,
                 .hint = "it must run as root; a guest that is locked down forbids it"};
  }
  if (welcome.ranges > agent::max_ranges) return bad_answer("too many ranges of RAM");
  if (rest.size() < welcome.ranges * sizeof(agent::Range)) return Taken{at};
  ranges.clear();
  std::uint64_t reached = 0;
  for (std::uint64_t i = 0; i < welcome.ranges; ++i) {
    const auto range = take<agent::Range>(rest);
    if (range.start < reached || range.start >= agent::max_address || range.size == 0 ||
        range.size > agent::max_address) {
      return bad_answer("impossible ranges of RAM");
    }
    reached = range.start + range.size;
    ranges.push_back({GuestPhys(range.start), range.size});
  }
  return Taken{came.size() - rest.size(), true};
}

Result<bool> AnswerReader::take_from(std::string_view& came) {
  if (!begun_) {
    if (came.size() < sizeof(agent::Answer)) return false;
    const auto head = take<agent::Answer>(came);
    if (head.magic != agent::answer_magic) return bad_answer("not an answer");
    if (head.id != id_ || head.runs != runs_.size()) return bad_answer("not to our question");
    if (head.size > agent::max_answer) return bad_answer("absurdly long");
    left_ = head.size;
    begun_ = true;
  }
  while (!runs_.empty()) {
    std::string_view rest = came;
    if (rest.size() < sizeof(std::uint64_t)) return false;
    const auto got = take<std::uint64_t>(rest);
    AgentMemory::Run& run = runs_.front();
    if (got > run.into.size()) return bad_answer("more bytes than were asked for");
    const std::uint64_t size = sizeof got + got;
    if (size > left_) return bad_answer("longer than it says");
    if (rest.size() < got) return false;
    std::memcpy(run.into.data(), rest.data(), got);
    run.got = got;
    came.remove_prefix(size);
    left_ -= size;
    runs_ = runs_.subspan(1);
  }
  if (left_ != 0) return bad_answer("shorter than it says");
  return true;
}

}  // namespace vmsight
