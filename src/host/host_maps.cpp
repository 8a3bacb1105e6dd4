#include "host/host_maps.h"

#include <sys/sysmacros.h>
#include <algorithm>
#include <charconv>
#include <optional>

namespace vmsight {
namespace {

/// Takes digits up to `stop` (or the end, if `stop` is NUL) and the stop itself.
std::optional<std::uint64_t> take_number(std::string_view& text, int base, char stop) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc() || at == end || *at != stop) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(at - text.data()) + 1);
  return value;
}

std::string_view take_line(std::string_view& text) {
  const auto end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

/// "7f5e3fe00000-7f5e5fe00000 rw-p 00000000 00:00 0      path"
std::optional<HostMapping> parse_mapping(std::string_view line) {
  HostMapping mapping;
  const auto start = take_number(line, 16, '-');
  if (!start) return std::nullopt;
  const auto end = take_number(line, 16, ' ');
  if (!end || *end < *start || line.size() < 5) return std::nullopt;
  mapping.start = HostVirt(*start);
  mapping.end = HostVirt(*end);
  mapping.readable = line[0] == 'r';
  mapping.writable = line[1] == 'w';
  mapping.executable = line[2] == 'x';
  mapping.shared = line[3] == 's';
  line.remove_prefix(5);
  const auto offset = take_number(line, 16, ' ');
  if (!offset) return std::nullopt;
  const auto major_number = take_number(line, 16, ':');
  if (!major_number) return std::nullopt;
  const auto minor_number = take_number(line, 16, ' ');
  if (!minor_number) return std::nullopt;
  const std::string padded = std::string(line) + ' ';  // nothing need follow the inode
  std::string_view rest = padded;
  const auto inode = take_number(rest, 10, ' ');
  if (!inode) return std::nullopt;
  mapping.offset = *offset;
  mapping.device = makedev(*major_number, *minor_number);
  mapping.inode = *inode;
  if (const auto path = rest.find_first_not_of(' '); path != std::string_view::npos) {
    mapping.path = rest.substr(path, rest.size() - 1 - path);
  }
  return mapping;
}

/// Of smaps: "Rss:       12 kB", "VmFlags: rd wr ..."; a mapping begins with a hexadecimal digit.
bool is_attribute(std::string_view line) {
  const auto colon = line.find(':');
  return !line.empty() && line[0] >= 'A' && line[0] <= 'Z' && colon < line.find(' ');
}

bool kind_matches(const HostMapping& mapping, const MemoryBackend& backend) {
  const std::string_view path = mapping.path;
  const bool memfd = path.starts_with("/memfd:");
  switch (backend.kind) {
    case BackendKind::ram:
      // Shared anonymous memory: /dev/zero, from QEMU 9.0 on a memfd.
      if (backend.share) return mapping.shared && (path.starts_with("/dev/zero") || memfd);
      return !mapping.shared && mapping.inode == 0 && path.empty();
    case BackendKind::memfd:
      return memfd && mapping.shared == backend.share;
    case BackendKind::shm:
      return path.starts_with("/dev/shm/") && mapping.shared == backend.share;
    case BackendKind::file:
      return mapping.inode != 0 && mapping.shared == backend.share &&
             path.find(backend.path) != std::string_view::npos;  // "" is in every path
    case BackendKind::other:
      return true;
  }
  return false;
}

/// Of equal ones: inodes rise with each creation, addresses fall.
bool created_before(const HostMapping& a, const HostMapping& b) {
  return a.inode != b.inode ? a.inode < b.inode : a.start > b.start;
}

bool may_be(const HostMapping& mapping, const MemoryBackend& backend) {
  return mapping.size() == backend.size && kind_matches(mapping, backend) &&
         mapping.offset == (mapping.inode != 0 ? backend.offset : 0);
}

std::vector<HostMapping> candidates(std::span<const HostMapping> maps, MemoryBackend backend) {
  std::vector<HostMapping> found;
  for (const HostMapping& mapping : maps) {
    if (mapping.writable && !mapping.executable && may_be(mapping, backend)) {
      found.push_back(mapping);
    }
  }
  if (found.empty() && !backend.path.empty()) {
    backend.path.clear();  // given by a symbolic link or a relative path: the rest must do
    return candidates(maps, std::move(backend));
  }
  std::sort(found.begin(), found.end(), created_before);
  return found;
}

bool alike(const MemoryBackend& a, const MemoryBackend& b) {
  return a.size == b.size && a.kind == b.kind && a.share == b.share && a.path == b.path &&
         a.offset == b.offset;
}

void set_backing(RamBlock& block, const HostMapping& mapping) {
  block.backing = mapping.shared       ? Backing::shared_file
                  : mapping.inode != 0 ? Backing::private_file
                                       : Backing::anonymous;
  block.path = mapping.path;
  block.device = mapping.device;
  block.inode = mapping.inode;
  block.file_offset = mapping.inode != 0 ? mapping.offset + (block.host - mapping.start) : 0;
}

RamBlock to_block(const HostMapping& mapping, const MemoryBackend& backend) {
  RamBlock block;
  block.name = backend.id;
  block.size = backend.size;
  block.host = mapping.start;
  set_backing(block, mapping);
  return block;
}

/// A VMA may have been split, by mbind() of a part or by a userfaultfd: join what continues.
std::vector<HostMapping> joined(std::span<const HostMapping> maps) {
  std::vector<HostMapping> runs;
  for (const HostMapping& next : maps) {
    if (!runs.empty()) {
      HostMapping& run = runs.back();
      const bool continues = run.end == next.start && run.writable == next.writable &&
                             run.shared == next.shared && run.executable == next.executable &&
                             run.inode == next.inode && run.device == next.device &&
                             run.path == next.path && run.dont_fork == next.dont_fork &&
                             (next.inode == 0 || run.offset + run.size() == next.offset);
      if (continues) {
        run.end = next.end;
        continue;
      }
    }
    runs.push_back(next);
  }
  return runs;
}

std::vector<HostMapping> only_guest_memory(std::vector<HostMapping> maps) {
  std::erase_if(maps, [](const HostMapping& m) { return !m.dont_fork; });
  return maps;
}

/// malloc() maps arenas of 64 MiB: size alone does not tell them from a small guest's RAM.
bool resembles_heap(const MemoryBackend& backend) {
  constexpr std::uint64_t largest_arena = 128u << 20;
  return backend.kind == BackendKind::ram && !backend.share && backend.size <= largest_arena;
}

Error no_mapping(const MemoryBackend& backend, bool several) {
  return {
      .code = several ? ErrorCode::ambiguous : ErrorCode::not_found,
      .message = fmt::format("find RAM block \"{}\": {} of {} MiB in the QEMU process", backend.id,
                             several ? "several mappings" : "no mapping", backend.size >> 20)};
}

/// Maps first; smaps if they are not enough.
class BlockFinder {
 public:
  BlockFinder(std::span<const HostMapping> maps, std::span<const MemoryBackend> backends,
              const std::function<Result<std::string>()>& read_smaps)
      : maps_(maps), backends_(backends), read_smaps_(read_smaps) {}

  Result<RamBlock> find(std::size_t index) {
    const MemoryBackend& backend = backends_[index];
    std::size_t twins = 0, rank = 0;  // equal backends, and how many of them come before
    for (std::size_t i = 0; i < backends_.size(); ++i) {
      if (!alike(backends_[i], backend)) continue;
      ++twins;
      if (i < index) ++rank;
    }
    auto found = candidates(maps_, backend);
    if (found.size() != twins || resembles_heap(backend)) {
      VMSIGHT_TRY_VOID(load_smaps());
      found = candidates(*guest_maps_, backend);
    }
    if (found.size() != twins) return no_mapping(backend, found.size() > twins);
    return to_block(found[rank], backend);
  }

 private:
  Result<void> load_smaps() {
    if (guest_maps_) return {};
    VMSIGHT_TRY(const std::string text, read_smaps_());
    VMSIGHT_TRY(auto maps, parse_maps(text));
    guest_maps_ = joined(only_guest_memory(std::move(maps)));
    return {};
  }

  std::span<const HostMapping> maps_;
  std::span<const MemoryBackend> backends_;
  const std::function<Result<std::string>()>& read_smaps_;
  std::optional<std::vector<HostMapping>> guest_maps_;
};

}  // namespace

Result<std::vector<HostMapping>> parse_maps(std::string_view text) {
  std::vector<HostMapping> maps;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (auto mapping = parse_mapping(line)) {
      maps.push_back(std::move(*mapping));
    } else if (!is_attribute(line) || maps.empty()) {
      return Error{.code = ErrorCode::bad_data, .message = "read maps: malformed line"};
    } else if (line.starts_with("VmFlags:")) {
      maps.back().dont_fork = line.find(" dc") != std::string_view::npos;
    }
  }
  return maps;
}

Result<std::vector<RamBlock>> find_ram_blocks(
    std::span<const HostMapping> maps, std::span<const MemoryBackend> backends,
    const std::function<Result<std::string>()>& read_smaps) {
  BlockFinder finder(maps, backends, read_smaps);
  std::vector<RamBlock> blocks;
  for (std::size_t i = 0; i < backends.size(); ++i) {
    VMSIGHT_TRY(RamBlock block, finder.find(i));
    blocks.push_back(std::move(block));
  }
  return blocks;
}

Result<std::vector<RamBlock>> find_plugged_blocks(std::string_view smaps,
                                                  std::span<const RamBlock> known,
                                                  std::span<const MemoryBackend> unplugged) {
  // Linux takes memory into use in sections of 128 MiB; video memory is smaller.
  constexpr std::uint64_t section = 128u << 20;
  VMSIGHT_TRY(auto maps, parse_maps(smaps));
  auto found = joined(only_guest_memory(std::move(maps)));
  std::erase_if(found, [&](const HostMapping& mapping) {
    return !mapping.writable || mapping.executable || mapping.size() % section != 0 ||
           std::any_of(known.begin(), known.end(),
                       [&](const RamBlock& b) { return b.host == mapping.start; }) ||
           std::any_of(unplugged.begin(), unplugged.end(),
                       [&](const MemoryBackend& b) { return may_be(mapping, b); });
  });
  std::sort(found.begin(), found.end(), [](const HostMapping& a, const HostMapping& b) {
    return a.start > b.start;  // the kernel places mappings downwards
  });
  std::vector<RamBlock> blocks;
  for (const HostMapping& mapping : found) {
    const MemoryBackend name{.id = fmt::format("plugged{}", blocks.size()), .size = mapping.size()};
    blocks.push_back(to_block(mapping, name));
  }
  return blocks;
}

Result<void> complete_block(std::span<const HostMapping> maps, RamBlock& block) {
  const auto runs = joined(maps);
  const auto found = std::find_if(runs.begin(), runs.end(), [&](const HostMapping& run) {
    return run.start <= block.host && block.host < run.end && run.writable &&
           run.end - block.host >= block.size;
  });
  if (found == runs.end()) {
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("find RAM block \"{}\": {} is not mapped in the process",
                                        block.name, block.host)};
  }
  set_backing(block, *found);
  return {};
}

}  // namespace vmsight
