#include "render/lsof.h"

#include <fcntl.h>
#include <unordered_map>
#include <unordered_set>

#include "render/format.h"
#include "render/sockets.h"

namespace vmsight {
namespace {

/// "3u": the number and how it was opened.
std::string fd_text(const OpenFile& file) {
  const unsigned mode = file.flags & O_ACCMODE;
  return fmt::format("{}{}", file.fd, mode == O_RDONLY ? 'r' : mode == O_WRONLY ? 'w' : 'u');
}

std::string size_or_offset(const OpenFile& file) {
  const bool sized = file.type == "REG" || file.type == "DIR" || file.type == "LNK";
  return sized ? fmt::format("{}", file.size) : fmt::format("0t{}", file.pos);
}

std::string device_text(std::uint64_t device) {
  return fmt::format("{},{}", device >> 20, device & 0xfffff);
}

/// TYPE of a socket: what lsof calls its family.
std::string_view family_type(const Socket& socket) {
  if (socket.family == "inet") return "IPv4";
  if (socket.family == "inet6") return "IPv6";
  return socket.family.data() == nullptr ? "SOCK" : socket.family;
}

std::string socket_name(const Socket& socket) {
  std::string name(socket.protocol);
  if (socket.family == "inet" || socket.family == "inet6") {
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    name += " " + endpoint(socket, Side::local);
    if (socket.remote_port != 0) name += "->" + endpoint(socket, Side::remote);
  } else if (!socket.local.empty()) {
    name = std::string(socket.local);
  }
  if (!socket.type.empty() && socket.family == "unix") name += fmt::format(" type={}", socket.type);
  return socket.state.empty() ? name : fmt::format("{} ({})", name, socket.state);
}

class OpenFileTable {
 public:
  explicit OpenFileTable(const State& state)
      : state_(state),
        table_({{"COMMAND"},
                {"PID", Align::right},
                {"USER", Align::right},
                {"FD", Align::right},
                {"TYPE"},
                {"DEVICE", Align::right},
                {"SIZE/OFF", Align::right},
                {"NODE", Align::right},
                {"NAME"}}) {
    for (const Socket& socket : state.sockets) {
      if (socket.pid && socket.fd) sockets_.emplace(key(*socket.pid, *socket.fd), &socket);
    }
    for (const OpenFile& file : state.open_files) files_[file.pid].push_back(&file);
    for (const MemoryMap& map : state.memory_maps) maps_[map.pid].push_back(&map);
  }

  void print(Output& out, const TableOptions& options) {
    for (const Process& process : state_.processes) add(process);
    table_.print(out, options);
  }

 private:
  static std::uint64_t key(std::int32_t pid, std::int32_t fd) {
    return std::uint64_t{static_cast<std::uint32_t>(pid)} << 32 | static_cast<std::uint32_t>(fd);
  }

  void add(const Process& process) {
    const auto path = [&](std::string_view fd, std::string_view type, std::string_view name) {
      if (name.data() != nullptr) row(process, {fd, type, "", "", "", name});
    };
    path("cwd", "DIR", process.cwd);
    path("rtd", "DIR", process.root);
    add_program(process);
    add_maps(process);
    const auto files = files_.find(process.pid);
    if (files == files_.end()) return;
    for (const OpenFile* file : files->second) add(process, *file);
  }

  /// The program; where it lies is known if it is mapped, as it nearly always is.
  void add_program(const Process& process) {
    if (process.exe.data() == nullptr) return;
    const auto maps = maps_.find(process.pid);
    if (maps != maps_.end()) {
      for (const MemoryMap* map : maps->second) {
        if (map->path != process.exe) continue;
        return row(process, {"txt", "REG", device_text(map->device), "", std::to_string(map->inode),
                             process.exe});
      }
    }
    row(process, {"txt", "REG", "", "", "", process.exe});
  }

  void add_maps(const Process& process) {
    const auto maps = maps_.find(process.pid);
    if (maps == maps_.end()) return;
    std::unordered_set<std::string_view> seen;
    for (const MemoryMap* map : maps->second) {
      if (map->inode == 0 || map->path == process.exe || !seen.insert(map->path).second) continue;
      row(process,
          {"mem", "REG", device_text(map->device), "", std::to_string(map->inode), map->path});
    }
  }

  void add(const Process& process, const OpenFile& file) {
    std::string type = known(file.type), name = known(file.path);
    if (const auto socket = sockets_.find(key(file.pid, file.fd)); socket != sockets_.end()) {
      type = family_type(*socket->second);
      name = socket_name(*socket->second);
    }
    row(process, {fd_text(file), type, device_text(file.device), size_or_offset(file),
                  std::to_string(file.inode), name});
  }

  /// The columns from FD on.
  void row(const Process& process, std::initializer_list<std::string_view> rest) {
    table_.cell(known(process.comm));
    table_.cell(std::to_string(process.pid));
    table_.cell(process.euid ? std::to_string(*process.euid) : "?");
    table_.row(rest);
  }

  const State& state_;
  Table table_;
  std::unordered_map<std::uint64_t, const Socket*> sockets_;
  std::unordered_map<std::int32_t, std::vector<const OpenFile*>> files_;
  std::unordered_map<std::int32_t, std::vector<const MemoryMap*>> maps_;
};

}  // namespace

void print_open_files(Output& out, const State& state, const TableOptions& options) {
  OpenFileTable(state).print(out, options);
}

}  // namespace vmsight
