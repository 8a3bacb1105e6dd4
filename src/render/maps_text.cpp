#include "render/maps_text.h"

#include <unordered_map>

#include "render/escape.h"
#include "render/format.h"
#include "render/ps_text.h"

namespace vmsight {
namespace {

std::uint64_t kib(std::uint64_t bytes) { return bytes / 1024; }

/// "r-x--": the letters of pmap; "s" for a shared map, which /proc has as the fourth letter.
std::string mode(const MemoryMap& map) {
  return fmt::format("{:.3}{}-", map.perms, map.perms[3] == 's' ? 's' : '-');
}

/// What is no file's stands a little to the right. pmap calls a heap and the kernel's pages [ anon ].
std::string mapping_name(const MemoryMap& map, bool full_path) {
  if (map.path.data() == nullptr) return "?";
  if (map.path.empty()) return "  [ anon ]";
  if (map.path == "[stack]") return "  [ stack ]";
  if (map.inode == 0) return "  " + for_terminal(map.path);
  return for_terminal(full_path ? map.path : map.path.substr(map.path.rfind('/') + 1));
}

using Kibibytes = std::optional<std::uint64_t>;  // unknown if any part is

std::string text_of(const Kibibytes& value) {
  return value ? fmt::format_int(*value).str() : std::string("?");
}

/// The sums of the columns, in KiB.
struct Totals {
  std::uint64_t size = 0, writable = 0, shared = 0;
  Kibibytes resident = 0, dirty = 0;

  void add(const MemoryMap& map) {
    const std::uint64_t own = kib(map.end - map.start);
    size += own;
    if (map.perms[3] == 's') {
      shared += own;
    } else if (map.perms[1] == 'w') {
      writable += own;
    }
    add(resident, map.rss_bytes);
    add(dirty, map.dirty_bytes);
  }
  static void add(Kibibytes& sum, const std::optional<std::uint64_t>& bytes) {
    sum = sum && bytes ? Kibibytes(*sum + kib(*bytes)) : std::nullopt;
  }
};

void print_headers(Output& out, const PmapFormat& format) {
  if (format.residency) out.write("Address           Kbytes     RSS   Dirty Mode  Mapping\n");
  if (format.device)
    out.write("Address           Kbytes Mode  Offset           Device    Mapping\n");
}

void print_map(Output& out, const MemoryMap& map, const PmapFormat& format) {
  const std::uint64_t size = kib(map.end - map.start);
  const std::string name = mapping_name(map, format.full_paths);
  const auto number = [](const std::optional<std::uint64_t>& bytes) {
    return text_of(bytes ? Kibibytes(kib(*bytes)) : std::nullopt);
  };
  if (format.residency) {
    return out.print("{:016x} {:>7} {:>7} {:>7} {} {}\n", map.start, size, number(map.rss_bytes),
                     number(map.dirty_bytes), mode(map), name);
  }
  if (format.device) {
    return out.print("{:016x} {:>7} {} {:016x} {:03x}:{:05x} {}\n", map.start, size, mode(map),
                     map.offset, map.device >> 20, map.device & 0xfffff, name);
  }
  out.print("{:016x} {:>6}K {} {}\n", map.start, size, mode(map), name);
}

void print_totals(Output& out, const Totals& totals, const PmapFormat& format) {
  if (format.residency) {
    return out.print(
        "---------------- ------- ------- -------\ntotal kB         {:>7} {:>7} {:>7}\n",
        totals.size, text_of(totals.resident), text_of(totals.dirty));
  }
  if (format.device) {
    return out.print("mapped: {}K    writeable/private: {}K    shared: {}K\n", totals.size,
                     totals.writable, totals.shared);
  }
  out.print(" total {:>16}K\n", totals.size);
}

void print_process(Output& out, const Process& process, const std::vector<const MemoryMap*>& maps,
                   const PmapFormat& format) {
  Totals totals;
  out.print("{}:   {}\n", process.pid, for_terminal(command_text(process)));
  if (format.headers) print_headers(out, format);
  for (const MemoryMap* map : maps) {
    totals.add(*map);
    print_map(out, *map, format);
  }
  if (format.headers) print_totals(out, totals, format);
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
