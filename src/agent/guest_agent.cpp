#include "agent/guest_agent.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <algorithm>
#include <array>
#include <cerrno>

#include "base/json_text.h"
#include "host/vm_info.h"

namespace vmsight {
namespace {

using nlohmann::json;
using Taken = AgentPort::Taken;
using namespace std::chrono_literals;

/// The agent reads through a buffer of the C library's, which must not give us what it read before:
/// far enough away it does not.
constexpr std::uint64_t buffer_reach = 64u << 10;
/// Memory is not plugged in more often.
constexpr std::chrono::milliseconds header_validity{100};

constexpr char sentinel =
    '\xff';  // begins the answer to guest-sync-delimited, and ends any garbage
constexpr std::string_view qga_hint =
    "start qemu-guest-agent in the guest; one that is paused or reboots does not answer";

std::string to_line(const GuestAgent::Command& command) {
  json message = {{"execute", command.name}};
  if (!command.arguments.empty()) message["arguments"] = command.arguments;
  return message.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

json parse_line(std::string_view line) {
  return json::parse(line, nullptr, /*allow_exceptions=*/false);
}

Error bad_qga_answer(std::string_view what) {
  return {.code = ErrorCode::bad_data,
          .message = fmt::format("read from qemu-guest-agent: {}", what)};
}

Result<json> value_of(const GuestAgent::Command& command, json answer) {
  if (!answer.is_object()) return bad_qga_answer("not a JSON object");
  return returned_value("qemu-guest-agent", command.name, std::move(answer));
}

/// The agent does not know the file that it opened for us.
Error lost_file(Error error) {
  error.code = ErrorCode::vm_gone;
  error.message =
      fmt::format("qemu-guest-agent was started anew while it was read: {}", error.message);
  error.hint = "the guest may have rebooted; attach again";
  return error;
}

/// The bytes of an answer to guest-file-read.
std::size_t bytes_of(const Result<json>& answer, std::span<std::byte> into) {
  if (!answer || !answer->is_object()) return 0;
  const auto text = answer->find("buf-b64");
  if (text == answer->end() || !text->is_string()) return 0;
  return decode_base64(text->get_ref<const std::string&>(), into).value_or(0);
}

/// Closes a file that was left open, if it is kcore: handles may be given out anew.
Result<void> close_left_file(AgentPort port, const json& payload) {
  const json handle = payload.value("handle", json());
  if (!handle.is_number_integer()) return bad_qga_answer("no handle is recorded");
  GuestAgent agent(std::move(port));
  std::array<std::byte, agent::kcore_header_size> header{};
  std::size_t got = 0;
  const std::array<GuestAgent::Command, 2> questions{
      {{"guest-file-seek", {{"handle", handle}, {"offset", 0}, {"whence", 0}}},
       {"guest-file-read", {{"handle", handle}, {"count", header.size()}}}}};
  VMSIGHT_TRY_VOID(agent.execute_all(questions, [&](std::size_t, const Result<json>& answer) {
    got = bytes_of(answer, header);
    return Result<void>();
  }));
  if (!agent::kcore_head_size(std::span(header).first(got))) return {};
  VMSIGHT_TRY(const json done, agent.execute({"guest-file-close", {{"handle", handle}}}));
  static_cast<void>(done);
  return {};
}

Result<void> undo_guest_file(const ProcessId& vm, const json& payload) {
  VMSIGHT_TRY(const VmInfo info, find_same_vm(vm));
  VMSIGHT_TRY(AgentPort port, AgentPort::connect(info, GuestAgent::port_name));
  return close_left_file(std::move(port), payload);
}

}  // namespace

constinit const ChangeKind guest_file_change{.name = "guest-file",
                                             .what = "a file was left open in the guest's agent",
                                             .undo = undo_guest_file};

std::optional<std::size_t> decode_base64(std::string_view text, std::span<std::byte> into) {
  const auto value = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  if (text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  const std::size_t size = text.size() / 4 * 3 - padding;
  if (size > into.size()) return std::nullopt;
  std::uint32_t bits = 0;
  std::size_t done = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int digit = i < text.size() - padding ? value(text[i]) : 0;
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (int shift = 16; shift >= 0 && done < size; shift -= 8) {
      into[done++] = static_cast<std::byte>(bits >> shift);
    }
  }
  return size;
}

Result<void> GuestAgent::sync(Milliseconds patience) {
  std::uint32_t id = 0;
  if (::getrandom(&id, sizeof id, 0) != sizeof id) return os_error(errno, "get random bytes");
  id &= 0x7fffffff;
  const std::string out = sentinel + to_line({"guest-sync-delimited", {{"id", id}}});
  auto done = port_.exchange(
      out, [&](std::string_view came) { return take_sync(came, id); }, patience, max_line);
  synced_ = done.has_value();
  if (!done && done.error().code == ErrorCode::timeout) {
    return port_.silence("qemu-guest-agent", std::string(qga_hint));
  }
  return done;
}

/// Whatever is not the answer to our sync was meant for others; it may have no end of line.
Result<Taken> GuestAgent::take_sync(std::string_view came, std::uint64_t id) {
  std::size_t used = 0;
  while (true) {
    const auto begin = came.find(sentinel, used);
    if (begin == std::string_view::npos) return Taken{came.size()};
    const auto end = came.find('\n', begin);
    if (end == std::string_view::npos) return Taken{begin};
    const json answer = parse_line(came.substr(begin + 1, end - begin - 1));
    used = end + 1;
    if (answer.is_object() && answer.value("return", json()) == id) return Taken{used, true};
  }
}

Result<void> GuestAgent::execute_all(std::span<const Command> commands, const TakeAnswer& take,
                                     Milliseconds patience) {
  if (!synced_) VMSIGHT_TRY_VOID(sync(patience));
  std::string out;
  for (const Command& command : commands) out += to_line(command);
  std::size_t index = 0;
  const auto take_lines = [&](std::string_view came) -> Result<Taken> {
    std::size_t used = 0;
    while (index < commands.size()) {
      const auto end = came.find('\n', used);
      if (end == std::string_view::npos) break;
      json answer = parse_line(came.substr(used, end - used));
      used = end + 1;
      VMSIGHT_TRY_VOID(take(index, value_of(commands[index], std::move(answer))));
      ++index;
    }
    return Taken{used, index == commands.size()};
  };
  auto done = port_.exchange(out, take_lines, patience, max_line);
  synced_ = done.has_value();
  if (!done && done.error().code == ErrorCode::timeout) {
    return port_.silence("qemu-guest-agent", std::string(qga_hint));
  }
  return done;
}

Result<json> GuestAgent::execute(Command command, Milliseconds patience) {
  Result<json> only = json();
  VMSIGHT_TRY_VOID(execute_all(
      std::span(&command, 1),
      [&](std::size_t, Result<json> answer) {
        only = std::move(answer);
        return Result<void>();
      },
      patience));
  return only;
}

Result<std::unique_ptr<GuestAgentMemory>> GuestAgentMemory::open(const VmInfo& info) {
  VMSIGHT_TRY(AgentPort port, AgentPort::connect(info, GuestAgent::port_name));
  return open(std::move(port), &info);
}

Result<std::unique_ptr<GuestAgentMemory>> GuestAgentMemory::open(AgentPort port) {
  return open(std::move(port), nullptr);
}

Result<std::unique_ptr<GuestAgentMemory>> GuestAgentMemory::open(AgentPort port,
                                                                 const VmInfo* info) {
  std::unique_ptr<GuestAgentMemory> memory(new GuestAgentMemory(std::move(port)));
  if (info != nullptr) memory->vm_ = {info->pid, info->start_time};
  VMSIGHT_TRY_VOID(memory->agent_.sync());
  VMSIGHT_TRY_VOID(memory->check_commands());
  VMSIGHT_TRY_VOID(memory->begin());
  return memory;
}

Result<void> GuestAgentMemory::begin() {
  VMSIGHT_TRY_VOID(open_kcore());
  if (vm_) {
    VMSIGHT_TRY(guard_,
                UndoGuard::start(*vm_, make_change(guest_file_change, {{"handle", *handle_}})));
    VMSIGHT_TRY_VOID(guard_->arm());
  }
  return load_segments();
}

/// An agent that was started anew has nothing open.
void GuestAgentMemory::forget_file() {
  handle_.reset();
  if (guard_) static_cast<void>(guard_->disarm());
  guard_.reset();
}

GuestAgentMemory::~GuestAgentMemory() {
  if (!handle_) return;
  const auto closed = agent_.execute({"guest-file-close", {{"handle", *handle_}}}, 1s);
  // Otherwise the guard tries it, once we have let go of the port.
  if (closed && guard_) static_cast<void>(guard_->disarm());
}

Result<void> GuestAgentMemory::check_commands() {
  VMSIGHT_TRY(const json info, agent_.execute({"guest-info"}));
  const json commands = info.is_object() ? info.value("supported_commands", json()) : json();
  std::vector<std::string> missing{"guest-file-open", "guest-file-seek", "guest-file-read",
                                   "guest-file-close"};
  for (const json& command : commands) {
    if (!command.is_object() || command.value("enabled", json()) != true) continue;
    std::erase_if(missing,
                  [&](const std::string& name) { return command.value("name", json()) == name; });
  }
  if (missing.empty()) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("read memory by qemu-guest-agent: its command {} is disabled",
                                      missing.front()),
               .hint = "allow guest-file-* in the guest: block-rpcs of /etc/qemu/qemu-ga.conf"};
}

Result<void> GuestAgentMemory::open_kcore() {
  auto handle = agent_.execute({"guest-file-open", {{"path", "/proc/kcore"}, {"mode", "r"}}});
  if (!handle) {
    handle.error().hint = "the agent must run as root; a guest that is locked down forbids it";
    return std::move(handle).error();
  }
  if (!handle->is_number_integer()) return bad_qga_answer("no handle of a file");
  handle_ = handle->get<std::int64_t>();
  return {};
}

GuestAgent::Command GuestAgentMemory::seek(std::uint64_t offset) const {
  return {"guest-file-seek", {{"handle", *handle_}, {"offset", offset}, {"whence", 0}}};
}

GuestAgent::Command GuestAgentMemory::read_command(std::size_t size) const {
  return {"guest-file-read", {{"handle", *handle_}, {"count", size}}};
}

/// The beginning of kcore.
Result<std::vector<std::byte>> GuestAgentMemory::read_head(std::size_t size) {
  std::vector<std::byte> bytes(size);
  const std::array commands{seek(0), read_command(size)};
  VMSIGHT_TRY_VOID(agent_.execute_all(commands, [&](std::size_t index, Result<json> answer) {
    if (!answer) return Result<void>(std::move(answer).error());
    if (index == 1) bytes.resize(bytes_of(answer, bytes));
    return Result<void>();
  }));
  return bytes;
}

Result<void> GuestAgentMemory::load_segments() {
  VMSIGHT_TRY(header_, read_head(agent::kcore_header_size));
  checked_ = std::chrono::steady_clock::now();
  const auto size = agent::kcore_head_size(header_);
  if (!size) return bad_qga_answer("the guest's /proc/kcore is none of an x86-64 kernel");
  VMSIGHT_TRY(const std::vector<std::byte> head, read_head(*size));
  segments_.resize(1024);
  segments_.resize(agent::find_segments(head, segments_));
  ranges_.clear();
  for (const agent::Segment& segment : segments_) {
    ranges_.push_back({GuestPhys(segment.start), segment.size});
  }
  if (!ranges_.empty()) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = "read memory by qemu-guest-agent: the guest's /proc/kcore shows no RAM"};
}

Result<void> GuestAgentMemory::read(std::span<Run> runs) {
  constexpr int attempts = 3;
  if (!handle_) VMSIGHT_TRY_VOID(begin());
  for (int i = 0; i < attempts; ++i) {
    VMSIGHT_TRY(const bool valid, ask(runs));
    if (valid) return {};
    VMSIGHT_TRY_VOID(load_segments());
  }
  return bad_qga_answer("the guest's /proc/kcore changes all the time");
}

/// What goes before reads that begin with this place in kcore: its header (2 commands), if it was
/// not looked at lately, or a seek that empties the agent's buffer, if there may be old bytes in it.
std::vector<GuestAgent::Command> GuestAgentMemory::prologue(std::uint64_t first) const {
  if (std::chrono::steady_clock::now() - checked_ > header_validity) {
    return {seek(0), read_command(header_.size())};
  }
  const std::uint64_t distance = first < last_end_ ? last_end_ - first : first - last_end_;
  if (distance < buffer_reach) return {seek(0)};
  return {};
}

/// False if memory was plugged in or out, which may have moved everything in kcore.
Result<bool> GuestAgentMemory::ask(std::span<Run> runs) {
  std::vector<GuestAgent::Command> commands;
  std::vector<Run*> asked;
  std::size_t before = 0;
  for (Run& run : runs) {
    run.got = 0;
    const agent::Segment* segment = agent::find_segment(segments_, run.from.raw());
    if (segment == nullptr) continue;
    const std::uint64_t inside = run.from.raw() - segment->start;
    const std::size_t size = std::min<std::uint64_t>(run.into.size(), segment->size - inside);
    if (asked.empty()) {
      commands = prologue(segment->offset + inside);
      before = commands.size();
    }
    commands.push_back(seek(segment->offset + inside));
    commands.push_back(read_command(size));
    asked.push_back(&run);
    last_end_ = segment->offset + inside + size;
  }
  if (asked.empty()) return true;
  bool valid = true;
  std::vector<std::byte> header(header_.size());
  const auto take = [&](std::size_t index, Result<json> answer) -> Result<void> {
    // Memory may be unreadable; a file that is open can be sought in.
    const bool is_seek = index < before ? index == 0 : (index - before) % 2 == 0;
    if (is_seek && !answer) {
      forget_file();
      return lost_file(std::move(answer).error());
    }
    if (index < before) {
      if (!answer) return std::move(answer).error();
      if (index == 1) valid = bytes_of(answer, header) == header.size() && header == header_;
    } else if (!is_seek) {
      Run& run = *asked[(index - before) / 2];
      run.got = bytes_of(answer, run.into);
    }
    return {};
  };
  calls_ += commands.size();
  VMSIGHT_TRY_VOID(agent_.execute_all(commands, take));
  if (before == 2 && valid) checked_ = std::chrono::steady_clock::now();
  return valid;
}

}  // namespace vmsight
