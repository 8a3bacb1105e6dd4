#include "render/maps.h"

#include <unordered_map>

#include "render/escape.h"
#include "render/format.h"
#include "render/ps.h"

namespace vmsight {
namespace {

std::string kib(std::uint64_t bytes) { return fmt::format("{}K", bytes / 1024); }

/// "r-x--": the letters of pmap; "s" for a shared map, which /proc has as the fourth letter.
std::string mode(const MemoryMap& map) {
  return fmt::format("{:.3}{}-", map.perms, map.perms[3] == 's' ? 's' : '-');
}

std::string mapping_name(const MemoryMap& map, bool full_path) {
  if (map.path.data() == nullptr) return "?";
  if (map.path.empty()) return "[ anon ]";
  if (full_path || map.inode == 0) return std::string(map.path);
  return std::string(map.path.substr(map.path.rfind('/') + 1));
}

std::string optional_kib(const std::optional<std::uint64_t>& bytes) {
  return bytes ? kib(*bytes) : "?";
}

Table empty_table(const PmapFormat& format) {
  std::vector<Column> columns = {{"Address"}, {"Kbytes", Align::right}};
  if (format.residency) {
    columns.push_back({"RSS", Align::right});
    columns.push_back({"Dirty", Align::right});
  }
  columns.push_back({"Mode"});
  if (format.extended) {
    columns.push_back({"Offset"});
    columns.push_back({"Device"});
    columns.push_back({"Inode", Align::right});
  }
  columns.push_back({"Mapping"});
  return Table(std::move(columns));
}

void print_process(Output& out, const Process& process, const std::vector<const MemoryMap*>& maps,
                   const PmapFormat& format) {
  Table table = empty_table(format);
  std::uint64_t total = 0;
  std::optional<std::uint64_t> resident = 0, dirty = 0;
  const auto add = [](std::optional<std::uint64_t>& sum, const std::optional<std::uint64_t>& one) {
    sum = sum && one ? std::optional(*sum + *one) : std::nullopt;
  };
  for (const MemoryMap* map : maps) {
    const std::uint64_t size = map->end - map->start;
    total += size;
    table.row({fmt::format("{:016x}", map->start), kib(size)});
    if (format.residency) {
      table.row({optional_kib(map->rss_bytes), optional_kib(map->dirty_bytes)});
      add(resident, map->rss_bytes);
      add(dirty, map->dirty_bytes);
    }
    table.cell(mode(*map));
    if (format.extended) {
      table.row({fmt::format("{:08x}", map->offset), device_name(map->device),
                 std::to_string(map->inode)});
    }
    table.cell(mapping_name(*map, format.full_paths));
  }
  if (format.table.headers) {
    out.print("{}:   {}\n", process.pid, for_terminal(command_text(process)));
  }
  table.print(out, format.table);
  if (!format.table.headers) return;
  out.print("total {}", kib(total));
  // The sums of the columns, as pmap prints them; without them what the kernel counts itself.
  if (format.residency && resident) out.print(", resident {}", kib(*resident));
  if (!format.residency && process.rss_bytes) {
    out.print(", resident {}", kib(*process.rss_bytes));
  }
  if (format.residency && dirty) out.print(", dirty {}", kib(*dirty));
  out.write("\n");
}

}  // namespace

void print_memory_maps(Output& out, const State& state, const PmapFormat& format) {
  std::unordered_map<std::int32_t, std::vector<const MemoryMap*>> maps;
  for (const MemoryMap& map : state.memory_maps) maps[map.pid].push_back(&map);
  for (const Process& process : state.processes) {
    if (out.failed()) return;
    print_process(out, process, maps[process.pid], format);
  }
}

}  // namespace vmsight
