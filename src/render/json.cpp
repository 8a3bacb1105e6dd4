#include "render/json.h"

#include "render/escape.h"
#include "render/format.h"

namespace vmsight {
namespace {

template <typename T>
Json optional_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json text_list(const std::vector<std::string_view>& texts) {
  Json list = Json::array();
  for (std::string_view text : texts) list.push_back(json_text(text));
  return list;
}

Json address_json(GuestVirt address) {
  return address.raw() == 0 ? Json(nullptr) : Json(json_address(address.raw()));
}

Json address_list(const std::vector<NetAddress>& addresses) {
  Json list = Json::array();
  for (const NetAddress& address : addresses) {
    list.push_back({{"family", json_text(address.family)},
                    {"local", json_text(address.local)},
                    {"prefixlen", address.prefix},
                    {"peer", json_text(address.peer)},
                    {"broadcast", json_text(address.broadcast)},
                    {"scope", json_text(address.scope)},
                    {"label", json_text(address.label)},
                    {"flags", text_list(address.flags)},
                    {"valid_life_time", optional_json(address.valid_life_time)},
                    {"preferred_life_time", optional_json(address.preferred_life_time)}});
  }
  return list;
}

Json memory_json(const std::optional<Socket::Memory>& memory) {
  if (!memory) return nullptr;
  return {{"receive", memory->receive},   {"receive_buffer", memory->receive_buffer},
          {"transmit", memory->transmit}, {"send_buffer", memory->send_buffer},
          {"forward", memory->forward},   {"write_queued", memory->write_queued},
          {"options", memory->options},   {"backlog", memory->backlog},
          {"drops", memory->drops}};
}

/// Writes the members of one object, one after the other.
class Document {
 public:
  Document(Output& out, bool one_line) : out_(out), break_(one_line ? "" : "\n") {}

  void open() { out_.write("{"); }
  void close() { out_.print("{}}}\n", break_); }

  void member(std::string_view key, const Json& value) {
    begin(key);
    out_.write(dump(value));
  }
  template <typename Record>
  void list(std::string_view key, const std::vector<Record>& records) {
    begin(key);
    out_.write("[");
    bool first = true;
    for (const Record& record : records) {
      if (out_.failed()) return;
      out_.print("{}{}", first ? "" : ",", break_);
      out_.write(dump(to_json(record)));
      first = false;
    }
    out_.write("]");
  }

 private:
  void begin(std::string_view key) {
    out_.print("{}{}\"{}\":", first_ ? "" : ",", break_, key);
    first_ = false;
  }

  Output& out_;
  std::string_view break_;
  bool first_ = true;
};

}  // namespace

Json json_text(std::string_view text) {
  return text.data() == nullptr ? Json(nullptr) : Json(for_json(text));
}

std::string json_address(std::uint64_t address) { return fmt::format("{:#x}", address); }

std::string dump(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

Json to_json(const VmSummary& vm) {
  return {{"name", for_json(vm.name)},
          {"pid", optional_json(vm.pid)},
          {"accelerator", json_text(vm.accelerator)},
          {"vcpus", optional_json(vm.vcpus)},
          {"memory_bytes", vm.memory_bytes},
          {"machine", vm.machine.empty() ? Json(nullptr) : Json(for_json(vm.machine))}};
}

Json to_json(const ViewInfo& view) {
  return {{"technique", view.technique},   {"paused", view.paused},
          {"start_ns", view.start_ns},     {"duration_ns", view.duration_ns},
          {"bytes_read", view.bytes_read}, {"pages", view.pages},
          {"retries", view.retries},       {"pause_ns", view.pause_ns}};
}

Json to_json(const TickInfo& tick) {
  return {{"number", tick.number},
          {"late_ns", tick.late_ns},
          {"late", tick.late},
          {"missed", tick.missed}};
}

Json to_json(const OsInfo& os) {
  return {{"sysname", json_text(os.sysname)},     {"nodename", json_text(os.nodename)},
          {"release", json_text(os.release)},     {"version", json_text(os.version)},
          {"machine", json_text(os.machine)},     {"uptime_s", optional_json(os.uptime_s)},
          {"cmdline", json_text(os.cmdline)},     {"boot_unix_ns", optional_json(os.boot_unix_ns)},
          {"unix_ns", optional_json(os.unix_ns)}, {"memory_bytes", optional_json(os.memory_bytes)}};
}

Json to_json(const CpuCache& cache) {
  return {{"level", cache.level},
          {"type", json_text(cache.type)},
          {"size_bytes", cache.size_bytes},
          {"ways", cache.ways},
          {"sets", cache.sets},
          {"line_bytes", cache.line_bytes},
          {"cpus", cache.cpus}};
}

Json to_json(const CpuInfo& cpu) {
  Json caches = Json::array();
  for (const CpuCache& cache : cpu.caches) caches.push_back(to_json(cache));
  return {{"cpu", cpu.cpu},
          {"vendor", json_text(cpu.vendor)},
          {"model_name", json_text(cpu.model_name)},
          {"mhz", optional_json(cpu.mhz)},
          {"cache_kib", optional_json(cpu.cache_kib)},
          {"online", cpu.online},
          {"family", optional_json(cpu.family)},
          {"model", optional_json(cpu.model)},
          {"stepping", optional_json(cpu.stepping)},
          {"socket", optional_json(cpu.socket)},
          {"core", optional_json(cpu.core)},
          {"node", optional_json(cpu.node)},
          {"bogomips", optional_json(cpu.bogomips)},
          {"physical_bits", cpu.physical_bits},
          {"virtual_bits", cpu.virtual_bits},
          {"flags", text_list(cpu.flags)},
          {"bugs", text_list(cpu.bugs)},
          {"caches", std::move(caches)}};
}

Json to_json(const NetDevice& device) {
  return {{"name", json_text(device.name)},
          {"netns", device.netns},
          {"hwaddr", json_text(device.hwaddr)},
          {"flags", text_list(device.flags)},
          {"mtu", device.mtu},
          {"ipv4", text_list(device.ipv4)},
          {"ipv6", text_list(device.ipv6)},
          {"rx_bytes", optional_json(device.rx_bytes)},
          {"tx_bytes", optional_json(device.tx_bytes)},
          {"rx_packets", optional_json(device.rx_packets)},
          {"tx_packets", optional_json(device.tx_packets)},
          {"ifindex", device.ifindex},
          {"addresses", address_list(device.addresses)},
          {"link_type", json_text(device.link_type)},
          {"operstate", json_text(device.operstate)},
          {"linkmode", json_text(device.linkmode)},
          {"broadcast", json_text(device.broadcast)},
          {"kind", json_text(device.kind)},
          {"qdisc", json_text(device.qdisc)},
          {"txqlen", device.tx_queue_length},
          {"group", device.group},
          {"ifalias", json_text(device.alias)},
          {"altnames", text_list(device.alternative_names)},
          {"master_index", device.master_index},
          {"master", json_text(device.master)},
          {"link_index", optional_json(device.link_index)},
          {"link", json_text(device.link)},
          {"link_netns", optional_json(device.link_netns)},
          {"link_netnsid", optional_json(device.link_netnsid)}};
}

Json to_json(const Module& module) {
  return {{"name", json_text(module.name)},
          {"state", json_text(module.state)},
          {"size", module.size},
          {"refcount", module.refcount},
          {"used_by", text_list(module.used_by)},
          {"base", address_json(module.base)}};
}

Json to_json(const std::optional<FileFacts>& file) {
  if (!file) return nullptr;
  return {{"type", json_text(file->type)},
          {"inode", file->inode},
          {"device", device_name(file->device)},
          {"size", file->size},
          {"links", file->links}};
}

Json to_json(const Process& process) {
  Json json = {{"pid", process.pid},
               {"tgid", process.tgid},
               {"ppid", process.ppid},
               {"comm", json_text(process.comm)},
               {"cmdline", process.cmdline ? text_list(*process.cmdline) : Json(nullptr)},
               {"state", std::string(1, process.state)},
               {"uid", optional_json(process.uid)},
               {"gid", optional_json(process.gid)},
               {"euid", optional_json(process.euid)},
               {"kernel_thread", process.kernel_thread},
               {"threads", optional_json(process.threads)},
               {"start_time_ns", process.start_time_ns},
               {"utime_ns", process.utime_ns},
               {"stime_ns", process.stime_ns},
               {"rss_bytes", optional_json(process.rss_bytes)},
               {"vsize_bytes", optional_json(process.vsize_bytes)},
               {"exe", json_text(process.exe)},
               {"cwd", json_text(process.cwd)},
               {"pidns", optional_json(process.pidns)},
               {"mntns", optional_json(process.mntns)},
               {"netns", optional_json(process.netns)},
               {"ns_pids", process.ns_pids},
               {"validity", to_string(process.validity)},
               {"egid", optional_json(process.egid)},
               {"suid", optional_json(process.suid)},
               {"sgid", optional_json(process.sgid)},
               {"fsuid", optional_json(process.fsuid)},
               {"fsgid", optional_json(process.fsgid)},
               {"root", json_text(process.root)},
               {"utsns", optional_json(process.utsns)},
               {"tty_nr", process.tty_nr},
               {"session", process.session},
               {"pgrp", process.pgrp},
               {"nice", process.nice},
               {"priority", process.priority},
               {"cpu", process.cpu},
               {"task", address_json(process.task)},
               {"flags", process.flags},
               {"tpgid", process.tpgid},
               {"policy", process.policy},
               {"rt_priority", process.rt_priority},
               {"locked_bytes", optional_json(process.locked_bytes)},
               {"exe_file", to_json(process.exe_file)},
               {"cwd_file", to_json(process.cwd_file)},
               {"root_file", to_json(process.root_file)}};
  return json;
}

Json to_json(const Thread& thread) {
  return {{"pid", thread.pid},
          {"tgid", thread.tgid},
          {"comm", json_text(thread.comm)},
          {"state", std::string(1, thread.state)},
          {"cpu", thread.cpu},
          {"task", address_json(thread.task)},
          {"stack", address_json(thread.stack)},
          {"uid", optional_json(thread.uid)},
          {"gid", optional_json(thread.gid)},
          {"euid", optional_json(thread.euid)},
          {"egid", optional_json(thread.egid)},
          {"start_time_ns", thread.start_time_ns},
          {"utime_ns", thread.utime_ns},
          {"stime_ns", thread.stime_ns},
          {"nice", thread.nice},
          {"priority", thread.priority},
          {"policy", thread.policy},
          {"rt_priority", thread.rt_priority},
          {"flags", thread.flags},
          {"cwd", json_text(thread.cwd)},
          {"root", json_text(thread.root)},
          {"files_of", thread.files_of == 0 ? Json(nullptr) : Json(thread.files_of)}};
}

Json to_json(const OpenFile& file) {
  return {{"pid", file.pid},
          {"fd", file.fd},
          {"type", json_text(file.type)},
          {"path", json_text(file.path)},
          {"pos", file.pos},
          {"flags", fmt::format("0{:o}", file.flags)},
          {"inode", file.inode},
          {"device", device_name(file.device)},
          {"size", file.size},
          {"tid", file.tid},
          {"rdev", file.rdev == 0 ? Json(nullptr) : Json(device_name(file.rdev))},
          {"links", file.links},
          {"lock", file.lock == 0 ? Json(nullptr) : Json(std::string(1, file.lock))},
          {"targets", file.targets}};
}

Json to_json(const MemoryMap& map) {
  Json json = {{"pid", map.pid},
               {"start", json_address(map.start)},
               {"end", json_address(map.end)},
               {"perms", std::string_view(map.perms, 4)},
               {"offset", map.offset},
               {"path", json_text(map.path)},
               {"inode", map.inode},
               {"device", device_name(map.device)},
               {"type", json_text(map.type)},
               {"size", map.size},
               {"links", map.links}};
  if (map.rss_bytes) json["rss_bytes"] = *map.rss_bytes;
  if (map.dirty_bytes) json["dirty_bytes"] = *map.dirty_bytes;
  return json;
}

Json to_json(const Socket& socket) {
  return {{"pid", optional_json(socket.pid)},
          {"fd", optional_json(socket.fd)},
          {"netns", socket.netns},
          {"family", json_text(socket.family)},
          {"protocol", json_text(socket.protocol)},
          {"state", json_text(socket.state)},
          {"local", json_text(socket.local)},
          {"local_port", socket.local_port},
          {"remote", json_text(socket.remote)},
          {"remote_port", socket.remote_port},
          {"inode", socket.inode},
          {"type", json_text(socket.type)},
          {"recv_queue", socket.recv_queue},
          {"send_queue", socket.send_queue},
          {"uid", optional_json(socket.uid)},
          {"peer_inode", socket.peer_inode},
          {"tid", optional_json(socket.tid)},
          {"protocol_number", socket.protocol_number},
          {"ifindex", socket.ifindex},
          {"device", json_text(socket.device)},
          {"v6only", optional_json(socket.v6only)},
          {"shutdown", optional_json(socket.shutdown)},
          {"groups", socket.groups},
          {"memory", memory_json(socket.memory)}};
}

Json to_json(const Mount& mount) {
  return {{"source", json_text(mount.source)},
          {"target", json_text(mount.target)},
          {"fstype", json_text(mount.fstype)},
          {"options", json_text(mount.options)},
          {"mntns", mount.mntns},
          {"id", mount.id},
          {"parent", mount.parent},
          {"device", device_name(mount.device)},
          {"root", json_text(mount.root)},
          {"super_options", json_text(mount.super_options)},
          {"propagation", json_text(mount.propagation)},
          {"peer_group", mount.peer_group},
          {"master_group", mount.master_group},
          {"propagate_from", mount.propagate_from}};
}

Json to_json(const LogRecord& record) {
  return {{"time_ns", record.time_ns},
          {"level", record.level},
          {"facility", record.facility},
          {"text", json_text(record.text)},
          {"sequence", record.sequence}};
}

Json to_json(const Problem& problem) {
  return {{"where", for_json(problem.where)}, {"what", for_json(problem.what)}};
}

void write_document(Output& out, const VmSummary& vm, const State& state,
                    const DocumentOptions& options) {
  const auto has = [&](Part part) { return (options.parts & part) != 0; };
  Document document(out, options.one_line);
  document.open();
  document.member("schema", "vmsight.state/1");
  document.member("vm", to_json(vm));
  document.member("view", to_json(state.view));
  if (has(part_os)) document.member("os", to_json(state.os));
  if (has(part_cpus)) document.list("cpus", state.cpus);
  if (has(part_net_devices)) document.list("net_devices", state.net_devices);
  if (has(part_modules)) document.list("modules", state.modules);
  if (has(part_processes)) document.list("processes", state.processes);
  if (has(part_threads)) document.list("threads", state.threads);
  if (has(part_open_files)) document.list("open_files", state.open_files);
  if (has(part_memory_maps)) document.list("memory_maps", state.memory_maps);
  if (has(part_sockets)) document.list("sockets", state.sockets);
  if (has(part_mounts)) document.list("mounts", state.mounts);
  if (has(part_kernel_log)) document.list("kernel_log", state.kernel_log);
  std::vector<Problem> problems = vm.problems;
  problems.insert(problems.end(), state.problems.begin(), state.problems.end());
  document.list("problems", problems);
  if (options.tick) document.member("tick", to_json(*options.tick));
  document.close();
}

}  // namespace vmsight
