#include "qemu/monitor_questions.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/json_text.h"
#include "host/process.h"
#include "host/process_paths.h"
#include "qemu/monitor_text.h"

namespace vmsight {
namespace {

using nlohmann::json;

/// A backend's RAM block carries its whole object path on machine types before 4.0.
std::string short_name(const std::string& name) {
  constexpr std::string_view prefix = "/objects/";
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

/// Names of the memory that the guest knows as RAM: not ROMs, video memory, PCI memory devices.
std::set<std::string> ram_names(const json& memory_devices, const CommandLine& line) {
  std::set<std::string> names;
  for (const MemoryBackend& backend : line.main_memory) names.insert(backend.id);
  for (const json& device : memory_devices) {
    if (!device.is_object()) continue;
    const auto data = device.find("data");
    if (data != device.end() && data->is_object()) {
      names.insert(short_name(text_of(*data, "memdev")));
    }
  }
  return names;
}

/// Whole pages of the range; joined with the one before where both GPA and backing continue.
void append(std::vector<RamRange>& ranges, const FlatRange& flat, const std::string& name) {
  const std::uint64_t skip = (page_size - flat.start.page_offset()) % page_size;
  if (flat.size < skip + page_size) return;
  const RamRange range{flat.start + skip, (flat.size - skip) & ~(page_size - 1), name,
                       flat.offset + skip};
  if (!ranges.empty()) {
    RamRange& last = ranges.back();
    if (last.end() == range.start && last.block == range.block &&
        last.block_offset + last.size == range.block_offset) {
      last.size += range.size;
      return;
    }
  }
  ranges.push_back(range);
}

/// The first range of each block; a block is one host mapping, so one question places it whole.
std::vector<const RamRange*> first_ranges(const std::vector<RamRange>& ranges) {
  std::vector<const RamRange*> firsts;
  std::set<std::string_view> seen;
  for (const RamRange& range : ranges) {
    if (seen.insert(range.block).second) firsts.push_back(&range);
  }
  return firsts;
}

Result<std::vector<RamBlock>> ask_blocks(QmpClient& monitor, const std::vector<RamRange>& ranges) {
  const auto firsts = first_ranges(ranges);
  std::vector<QmpClient::Command> questions;
  for (const RamRange* range : firsts) {
    questions.push_back(QmpClient::human(fmt::format("gpa2hva {:#x}", range->start.raw())));
  }
  VMSIGHT_TRY(const auto answers, monitor.execute_all(questions));
  std::vector<RamBlock> blocks;
  for (std::size_t i = 0; i < firsts.size(); ++i) {
    VMSIGHT_TRY(const std::string text, human_text(answers[i]));
    VMSIGHT_TRY(const HostVirt host, parse_gpa2hva(text));
    blocks.push_back({.name = firsts[i]->block, .host = host - firsts[i]->block_offset});
  }
  return blocks;
}

/// Sizes of the blocks from the ranges, host addresses of the ranges from the blocks.
void connect_ranges(MonitorLayout& layout) {
  for (RamRange& range : layout.ranges) {
    const auto block = std::find_if(layout.blocks.begin(), layout.blocks.end(),
                                    [&](const RamBlock& b) { return b.name == range.block; });
    VMSIGHT_CHECK(block != layout.blocks.end());
    block->size = std::max(block->size, range.block_offset + range.size);
    range.host = block->host + range.block_offset;
  }
}

Error no_monitor(std::string_view why, std::string hint) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("ask the QEMU monitor: {}", why),
          .hint = std::move(hint)};
}

struct Socket {
  std::string path;
  bool held = false;
};

std::vector<Socket> free_ones_first(const VmInfo& info) {
  const auto net_unix = read_proc_file(info.pid, "net/unix");
  std::vector<Socket> sockets;
  for (const std::string& path : info.qmp_sockets) {
    sockets.push_back({path, net_unix && has_client(*net_unix, path_inside(path))});
  }
  std::stable_partition(sockets.begin(), sockets.end(), [](const Socket& s) { return !s.held; });
  return sockets;
}

Result<QmpClient> connect_socket(const VmInfo& info, const Socket& socket) {
  if (is_stopped(info.pid)) {
    return no_monitor("the QEMU process is stopped", fmt::format("kill -CONT {}", info.pid));
  }
  auto client = QmpClient::connect(socket.path, info.pid,
                                   socket.held ? QmpClient::held_time : QmpClient::greeting_time);
  if (!client) {
    return no_monitor(fmt::format("{}: {}", socket.path, client.error().message),
                      client.error().hint);
  }
  return client;
}

}  // namespace

Result<QmpClient> connect_monitor(const VmInfo& info) {
  if (info.libvirt) {
    return no_monitor("it belongs to libvirt", "");
  }
  if (info.qmp_sockets.empty()) {
    return no_monitor("QEMU was started without a QMP socket",
                      "start it with -qmp unix:PATH,server=on,wait=off");
  }
  std::optional<Error> error;
  for (const Socket& socket : free_ones_first(info)) {
    auto client = connect_socket(info, socket);
    if (client) return client;
    if (!error) error = std::move(client).error();
  }
  return *error;
}

Result<MonitorLayout> ask_layout(QmpClient& monitor, const CommandLine& line) {
  const std::vector<QmpClient::Command> questions = {{"query-memory-devices"},
                                                     QmpClient::human("info mtree -f")};
  VMSIGHT_TRY(const auto answers, monitor.execute_all(questions));
  const auto names = ram_names(answers[0], line);
  VMSIGHT_TRY(const std::string text, human_text(answers[1]));
  VMSIGHT_TRY(const auto flat, parse_flat_view(text));
  MonitorLayout layout;
  for (const FlatRange& range : flat) {
    const std::string name = short_name(range.name);
    if (names.contains(name)) append(layout.ranges, range, name);
  }
  if (layout.ranges.empty()) {
    return Error{.code = ErrorCode::bad_data, .message = "read info mtree: no guest RAM in it"};
  }
  VMSIGHT_TRY(layout.blocks, ask_blocks(monitor, layout.ranges));
  connect_ranges(layout);
  return layout;
}

Result<std::vector<VcpuRegisters>> ask_registers(QmpClient& monitor) {
  VMSIGHT_TRY(const auto answer, monitor.execute(QmpClient::human("info registers -a")));
  VMSIGHT_TRY(const std::string text, human_text(answer));
  return parse_registers(text);
}

}  // namespace vmsight
