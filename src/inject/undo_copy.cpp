#include "inject/undo_copy.h"

#include <fmt/format.h>
#include <poll.h>
#include <algorithm>
#include <csignal>

#include "host/option_list.h"
#include "host/process.h"
#include "inject/process_copy.h"

namespace vmsight {
namespace {

using nlohmann::json;

constexpr std::size_t max_blocks = 4096;
constexpr std::size_t max_copies = 64;

/// The numbers at the words of a text.
std::vector<pid_t> numbers_in(std::string_view text) {
  std::vector<pid_t> numbers;
  while (!text.empty()) {
    const auto end = std::min(text.find_first_of(" \n\t"), text.size());
    if (const auto number = parse_number(text.substr(0, end))) {
      numbers.push_back(static_cast<pid_t>(*number));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return numbers;
}

/// As QEMU sees it: the last of its numbers is that of the innermost namespace.
Result<pid_t> pid_in_vm(pid_t copy) {
  VMSIGHT_TRY(const std::string status, read_proc_file(copy, "status"));
  const auto field = parse_status_field(status, "NSpid");
  const auto numbers = field ? numbers_in(*field) : std::vector<pid_t>{};
  return numbers.empty() ? copy : numbers.back();
}

Result<void> end_and_reap(pid_t vm, pid_t copy, Tracing& tracing) {
  VMSIGHT_TRY(const ProcessId id, identify(copy));
  VMSIGHT_TRY(const UniqueFd process, open_pidfd(id));
  VMSIGHT_TRY(const pid_t number, pid_in_vm(copy));
  ::kill(copy, SIGKILL);
  constexpr int patience_ms = 5000;
  pollfd event{.fd = process.get(), .events = POLLIN};
  if (::poll(&event, 1, patience_ms) <= 0) {
    return Error{.code = ErrorCode::timeout,
                 .message = fmt::format("end the copy {} of process {}: it does not end", copy, vm),
                 .hint = "is it traced by another process?"};
  }
  return reap_copy(vm, number, tracing);
}

/// A thread that was about to reap it when its tracer was killed does so on its own way back.
bool is_there(pid_t vm, pid_t copy) {
  const std::vector<pid_t> copies = copies_of(vm);
  return std::find(copies.begin(), copies.end(), copy) != copies.end();
}

}  // namespace

bool has_no_exit_signal(std::string_view stat) {
  const auto name_end = stat.rfind(") ");
  if (name_end == std::string_view::npos) return false;
  stat.remove_prefix(name_end + 2);
  constexpr int first = 3, exit_signal = 38;
  for (int field = first; field < exit_signal; ++field) {
    const auto space = stat.find(' ');
    if (space == std::string_view::npos) return false;
    stat.remove_prefix(space + 1);
  }
  return parse_number(stat.substr(0, stat.find_first_of(" \n"))) == 0;
}

std::vector<pid_t> copies_of(pid_t pid) {
  std::vector<pid_t> copies;
  const auto threads = list_threads(pid);
  if (!threads) return copies;
  for (const pid_t tid : *threads) {
    const auto children = read_proc_file(pid, fmt::format("task/{}/children", tid));
    for (const pid_t child : numbers_in(children ? *children : "")) {
      const auto stat = read_proc_file(child, "stat");
      if (stat && has_no_exit_signal(*stat) && copies.size() < max_copies) copies.push_back(child);
    }
  }
  return copies;
}

json describe_copy(std::span<const RamBlock> blocks) {
  json list = json::array();
  for (const RamBlock& block : blocks) {
    list.push_back({{"host", block.host.raw()}, {"size", block.size}});
  }
  return {{"blocks", std::move(list)}};
}

Result<std::vector<RamBlock>> parse_copied_blocks(const json& payload) {
  const Error bad{.code = ErrorCode::bad_data, .message = "undo a copy: not a record of one"};
  const json list = payload.is_object() ? payload.value("blocks", json()) : json();
  if (!list.is_array() || list.size() > max_blocks) return bad;
  std::vector<RamBlock> blocks;
  for (const json& block : list) {
    if (!block.is_object()) return bad;
    const json host = block.value("host", json()), size = block.value("size", json());
    if (!host.is_number_unsigned() || !size.is_number_unsigned()) return bad;
    blocks.push_back(
        {.size = size.get<std::uint64_t>(), .host = HostVirt(host.get<std::uint64_t>())});
  }
  return blocks;
}

Result<void> undo_copy(const ProcessId& vm, const json& payload) {
  VMSIGHT_TRY(const std::vector<RamBlock> blocks, parse_copied_blocks(payload));
  Tracing tracing;
  for (const pid_t copy : copies_of(vm.pid)) {
    auto done = end_and_reap(vm.pid, copy, tracing);
    if (!done && is_there(vm.pid, copy)) return done;
  }
  return keep_out_of_children(vm.pid, blocks, tracing);
}

constinit const ChangeKind copy_change{
    .name = "fork", .what = "a copy of the QEMU process was made", .undo = undo_copy};

}  // namespace vmsight
