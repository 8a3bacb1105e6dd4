#include "render/lsof_text.h"

#include <fcntl.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "render/format.h"

namespace vmsight {
namespace {

constexpr std::size_t max_targets = 32;  // lsof shows no more of an epoll
constexpr std::string_view removed = " (deleted)";

/// The cells of a row from FD on.
struct FileRow {
  std::string fd, type, device, size, links, node, name;
};

/// "3u ", "4uW": the number, how it was opened, and a lock.
std::string fd_text(const OpenFile& file) {
  const unsigned mode = file.flags & O_ACCMODE;
  const bool by_path_only = (file.flags & O_PATH) != 0;
  const char access = by_path_only ? 'u' : mode == O_RDONLY ? 'r' : mode == O_WRONLY ? 'w' : 'u';
  return fmt::format("{}{}{}", file.fd, access, file.lock == 0 ? ' ' : file.lock);
}

std::string device_text(std::uint64_t device) {
  return fmt::format("{},{}", device >> 20, device & 0xfffff);
}

bool is_sized(std::string_view type) {
  return type == "REG" || type == "DIR" || type == "LNK" || type == "ANON";
}

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return result;
}

bool is_inet(const Socket& socket) { return socket.family == "inet" || socket.family == "inet6"; }

/// One that was never bound stands in no table of the guest: its tools know the protocol only.
bool is_bare(const Socket& socket) {
  return is_inet(socket) && socket.local_port == 0 && socket.remote_port == 0 &&
         socket.protocol != "raw";
}

/// TYPE of a socket: what lsof calls its family.
std::string socket_type(const Socket& socket) {
  if (is_bare(socket)) return "sock";
  if (socket.protocol == "raw") return socket.family == "inet" ? "raw" : "raw6";
  if (is_inet(socket)) return socket.family == "inet" ? "IPv4" : "IPv6";
  if (socket.family == "unix" || socket.family == "netlink") return std::string(socket.family);
  return socket.family == "packet" ? "pack" : "sock";
}

std::string unix_name(const Socket& socket) {
  std::string name(socket.local.data() == nullptr ? "" : socket.local);
  if (!name.empty()) name += ' ';
  const std::string_view state = socket.state == "ESTABLISHED" ? "CONNECTED"
                                 : socket.state == "UNCONN"    ? "UNCONNECTED"
                                                               : socket.state;
  return name + fmt::format("type={} ({})", upper(socket.type), state);
}

/// "*:80", "[::1]:53": no address is any.
std::string inet_end(std::string_view address, std::uint32_t port) {
  const bool any = address.empty() || address == "0.0.0.0" || address == "::";
  const bool is_v6 = address.find(':') != address.npos;
  const std::string host = any ? "*" : is_v6 ? fmt::format("[{}]", address) : std::string(address);
  return port == 0 ? host + ":*" : fmt::format("{}:{}", host, port);
}

// include/uapi/linux/netlink.h, as lsof has the names.
constexpr std::string_view netlink_protocols[] = {
    "ROUTE",         "UNUSED",   "USERSOCK", "FIREWALL",       "INET_DIAG",  "NFLOG",
    "XFRM",          "SELINUX",  "ISCSI",    "AUDIT",          "FIB_LOOKUP", "CONNECTOR",
    "NETFILTER",     "IP6_FW",   "DNRTMSG",  "KOBJECT_UEVENT", "GENERIC",    "",
    "SCSITRANSPORT", "ECRYPTFS", "RDMA",     "CRYPTO"};

std::string netlink_name(const Socket& socket) {
  const std::uint32_t number = socket.protocol_number;
  const std::string_view name =
      number < std::size(netlink_protocols) ? netlink_protocols[number] : "";
  return name.empty() ? fmt::format("unknown protocol number: {}", number) : std::string(name);
}

/// ETH_P_* of include/uapi/linux/if_ether.h, those that lsof names most.
std::string packet_protocol(const Socket& socket) {
  switch (socket.protocol_number) {
    case 0x0003:
      return "ALL";
    case 0x0800:
      return "IP";
    case 0x0806:
      return "ARP";
    case 0x86dd:
      return "IPV6";
    default:
      return fmt::format("{:#x}", socket.protocol_number);
  }
}

std::string socket_name(const Socket& socket) {
  if (socket.family == "unix") return unix_name(socket);
  if (socket.family == "netlink") return netlink_name(socket);
  if (socket.family == "packet") return "type=SOCK_" + upper(known(socket.type));
  if (!is_inet(socket) || is_bare(socket)) {
    return "protocol: " + upper(known(socket.protocol));
  }
  std::string name = inet_end(socket.local, socket.local_port);
  if (socket.remote_port != 0) name += "->" + inet_end(socket.remote, socket.remote_port);
  const bool has_state = socket.protocol == "tcp" || socket.protocol == "mptcp";
  return has_state ? fmt::format("{} ({})", name, known(socket.state)) : name;
}

/// "anon_inode:[eventpoll]" -> "[eventpoll:3,5]", "pipe:[77]" -> "pipe", "net:[9]" -> "net".
std::string file_name(const OpenFile& file) {
  if (file.path.data() == nullptr) return "?";
  std::string name(file.path);
  const std::string number = fmt::format(":[{}]", file.inode);  // of a pipe, a namespace
  if (name.ends_with(number)) return name.substr(0, name.size() - number.size());
  if (name.starts_with("anon_inode:")) name.erase(0, std::string_view("anon_inode:").size());
  if (file.targets.empty() || !name.ends_with(']')) return name;
  name.back() = ':';
  for (std::size_t i = 0; i < std::min(file.targets.size(), max_targets); ++i) {
    name += fmt::format("{}{}", i == 0 ? "" : ",", file.targets[i]);
  }
  return name + (file.targets.size() > max_targets ? "...]" : "]");
}

class OpenFileTable {
 public:
  OpenFileTable(const State& state, const LsofFormat& format)
      : state_(state), format_(format), with_tasks_(needs_tasks()), table_(columns()) {
    for (const Socket& socket : state.sockets) note(socket);
    for (const OpenFile& file : state.open_files) files_[file.tid].push_back(&file);
    for (const MemoryMap& map : state.memory_maps) maps_[map.pid].push_back(&map);
    for (const Thread& thread : state.threads) threads_[thread.tgid].push_back(&thread);
  }

  void print(Output& out) {
    for (const Process& process : state_.processes) add(process);
    table_.print(out, format_.table);
  }

 private:
  /// Threads have a column if they are asked for, or if one has files that its process has not.
  bool needs_tasks() const {
    if (format_.tasks) return true;
    std::unordered_map<std::int32_t, std::int32_t> first;
    return std::any_of(state_.open_files.begin(), state_.open_files.end(),
                       [&](const OpenFile& file) {
                         return first.emplace(file.pid, file.tid).first->second != file.tid;
                       });
  }

  std::vector<Column> columns() const {
    std::vector<Column> columns = {{"COMMAND"}, {"PID", Align::right}};
    if (with_tasks_) {
      columns.push_back({"TID", Align::right});
      columns.push_back({"TASKCMD"});
    }
    if (format_.parents) columns.push_back({"PPID", Align::right});
    if (format_.groups) columns.push_back({"PGID", Align::right});
    columns.push_back({"USER", Align::right});
    columns.push_back({"FD  ", Align::right});
    columns.push_back({"TYPE", Align::right});
    columns.push_back({"DEVICE", Align::right});
    columns.push_back({format_.sizes     ? "SIZE"
                       : format_.offsets ? "OFFSET"
                                         : "SIZE/OFF",
                       Align::right});
    if (format_.links) columns.push_back({"NLINK", Align::right});
    columns.push_back({"NODE", Align::right});
    columns.push_back({"NAME"});
    return columns;
  }

  /// The connections of a socket of MPTCP have its number: they are what the guest's tools show.
  void note(const Socket& socket) {
    if (!socket.tid || !socket.fd) return;
    const auto [at, is_new] = sockets_.emplace(lsof_slot(*socket.tid, *socket.fd), &socket);
    if (!is_new && at->second->protocol == "mptcp") at->second = &socket;
  }

  void add(const Process& process) {
    add_places(process, nullptr);
    // The first table is that of the process; those of single threads come behind it.
    std::unordered_set<std::int32_t> shown;
    const std::vector<const Thread*>& threads = threads_[process.pid];
    const std::int32_t own = own_table(process, threads);
    add_files(process, nullptr, own);
    for (const Thread* thread : threads) {
      if (format_.tasks && thread->pid != process.pid) {
        add_places(process, thread);
        add_files(process, thread, thread->files_of);
      } else if (!format_.tasks && thread->files_of != own &&
                 shown.insert(thread->files_of).second) {
        add_files(process, thread, thread->files_of);
      }
    }
  }

  /// The table of the main thread, or of the first that lives.
  static std::int32_t own_table(const Process& process, const std::vector<const Thread*>& threads) {
    for (const Thread* thread : threads) {
      if (thread->files_of != 0) return thread->files_of;
    }
    return process.pid;
  }

  void add_places(const Process& process, const Thread* thread) {
    const bool elsewhere = thread != nullptr && thread->cwd.data() != nullptr &&
                           process.cwd.data() != nullptr && thread->cwd != process.cwd;
    add_place(process, thread, "cwd", "DIR", elsewhere ? thread->cwd : process.cwd,
              elsewhere ? std::nullopt : process.cwd_file);
    add_place(process, thread, "rtd", "DIR", process.root, process.root_file);
    add_place(process, thread, "txt", "REG", process.exe, process.exe_file);
    add_maps(process, thread);
  }

  void add_place(const Process& process, const Thread* thread, std::string_view fd,
                 std::string_view type, std::string_view path,
                 const std::optional<FileFacts>& facts) {
    if (path.data() == nullptr) return;
    FileRow row{.fd = fmt::format("{}  ", fd),
                .type = std::string(type),
                .device = {},
                .size = {},
                .links = {},
                .node = {},
                .name = std::string(path)};
    if (facts) {
      row.type = facts->type;
      row.device = device_text(facts->device);
      row.size = format_.offsets ? "" : std::to_string(facts->size);
      row.links = std::to_string(facts->links);
      row.node = std::to_string(facts->inode);
    }
    put(process, thread, row);
  }

  /// Each mapped file once, the program aside, which is `txt`.
  void add_maps(const Process& process, const Thread* thread) {
    const auto maps = maps_.find(process.pid);
    if (maps == maps_.end()) return;
    std::unordered_set<std::string> seen;
    for (const MemoryMap* map : maps->second) {
      if (!is_mapped_file(*map) || is_program(process, *map)) continue;
      if (!seen.insert(fmt::format("{} {}", map->device, map->inode)).second) continue;
      const bool gone = map->path.ends_with(removed);
      const std::string_view name =
          gone ? map->path.substr(0, map->path.size() - removed.size()) : map->path;
      put(process, thread,
          {.fd = gone ? "DEL  " : "mem  ",
           .type = map->type.data() == nullptr ? "REG" : std::string(map->type),
           .device = device_text(map->device),
           .size = gone || format_.offsets ? "" : std::to_string(map->size),
           .links = gone ? "" : std::to_string(map->links),
           .node = std::to_string(map->inode),
           .name = known(name)});
    }
  }

  static bool is_program(const Process& process, const MemoryMap& map) {
    if (process.exe_file) {
      return process.exe_file->inode == map.inode && process.exe_file->device == map.device;
    }
    return process.exe.data() != nullptr && map.path == process.exe;
  }

  void add_files(const Process& process, const Thread* thread, std::int32_t table) {
    const auto files = files_.find(table);
    if (files == files_.end()) return;
    for (const OpenFile* file : files->second) put(process, thread, row_of(*file));
  }

  FileRow row_of(const OpenFile& file) const {
    const bool is_device = (file.type == "CHR" || file.type == "BLK") && file.rdev != 0;
    const bool has_links = file.path.starts_with('/');
    FileRow row{.fd = fd_text(file),
                .type = file.type == "ANON" ? "a_inode" : known(file.type),
                .device = device_text(is_device ? file.rdev : file.device),
                .size = size_of(file),
                .links = has_links ? std::to_string(file.links) : "",
                .node = std::to_string(file.inode),
                .name = file_name(file)};
    if (const auto socket = sockets_.find(lsof_slot(file.tid, file.fd)); socket != sockets_.end()) {
      describe(*socket->second, row);
    } else if (file.type == "SOCK") {
      row.type = "sock";
    }
    return row;
  }

  /// Where other files have a device, Internet sockets have their number; where those have it, the
  /// protocol.
  static void describe(const Socket& socket, FileRow& row) {
    row.type = socket_type(socket);
    row.name = socket_name(socket);
    if (row.type == "netlink") row.device.clear();
    if (row.type == "pack") {
      row.device = row.node;
      row.node = packet_protocol(socket);
    }
    if (row.type != "IPv4" && row.type != "IPv6") return;
    row.device = row.node;
    row.node = upper(socket.protocol);
  }

  std::string size_of(const OpenFile& file) const {
    const bool sized = is_sized(file.type);
    if (format_.offsets || (!sized && !format_.sizes)) return fmt::format("0t{}", file.pos);
    return sized ? std::to_string(file.size) : "";
  }

  void put(const Process& process, const Thread* thread, const FileRow& row) {
    const auto name = [&](std::string_view comm) {
      const std::string whole = known(comm);
      return format_.command_width == 0
                 ? whole
                 : whole.substr(0, std::max<std::size_t>(format_.command_width, 7));
    };
    table_.cell(name(process.comm));
    table_.cell(std::to_string(process.pid));
    if (with_tasks_) {
      table_.cell(thread == nullptr ? "" : std::to_string(thread->pid));
      table_.cell(thread == nullptr ? "" : name(thread->comm));
    }
    if (format_.parents) table_.cell(std::to_string(process.ppid));
    if (format_.groups) table_.cell(std::to_string(process.pgrp));
    table_.cell(process.euid ? std::to_string(*process.euid) : "?");
    table_.row({row.fd, row.type, row.device, row.size});
    if (format_.links) table_.cell(row.links);
    table_.row({row.node, row.name});
  }

  const State& state_;
  const LsofFormat& format_;
  bool with_tasks_;
  Table table_;
  std::unordered_map<std::uint64_t, const Socket*> sockets_;
  std::unordered_map<std::int32_t, std::vector<const OpenFile*>> files_;  // by table
  std::unordered_map<std::int32_t, std::vector<const MemoryMap*>> maps_;
  std::unordered_map<std::int32_t, std::vector<const Thread*>> threads_;
};

}  // namespace

void print_open_files(Output& out, const State& state, const LsofFormat& format) {
  if (!format.terse) return OpenFileTable(state, format).print(out);
  for (const Process& process : state.processes) out.print("{}\n", process.pid);
}

}  // namespace vmsight
