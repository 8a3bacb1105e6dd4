#include "qemu/ram_layout.h"

#include <algorithm>
#include <array>

#include "base/units.h"

namespace vmsight {
namespace {

constexpr GuestPhys four_gib{4 * gibibyte};
/// From machine version 7.1 on, RAM of AMD CPU models that would reach the HyperTransport hole
/// begins at 1 TiB instead.
constexpr std::uint64_t amd_hole = 0xfd00000000;

/// The legacy area that is not RAM, whatever the firmware does.
struct LowHole {
  GuestPhys start, end;
};
constexpr LowHole vga_hole{GuestPhys(0xa0000), GuestPhys(0xc0000)};
constexpr LowHole microvm_bios_hole{GuestPhys(0xf0000), GuestPhys(0x100000)};

enum class MachineKind { pc, q35, microvm };

Result<MachineKind> machine_kind(std::string_view machine) {
  if (machine == "pc" || machine.starts_with("pc-i440fx")) return MachineKind::pc;
  if (machine == "q35" || machine.starts_with("pc-q35")) return MachineKind::q35;
  if (machine == "microvm") return MachineKind::microvm;
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("derive RAM layout: machine \"{}\" is not known", machine),
               .hint = "start QEMU with -qmp unix:PATH,server=on,wait=off to let it tell"};
}

/// The i440FX machines before 2.0 did not move the split to a GiB boundary.
bool is_before_2_0(std::string_view machine) {
  return machine.starts_with("pc-i440fx-1.") || machine.starts_with("pc-i440fx-0.");
}

std::uint64_t pc_split(const CommandLine& line, std::uint64_t ram_bytes) {
  std::uint64_t split = line.max_ram_below_4g.value_or(3584 * mebibyte);
  if (ram_bytes >= split && !is_before_2_0(line.machine)) split = std::min(split, 3 * gibibyte);
  return split;
}

std::uint64_t q35_split(const CommandLine& line, std::uint64_t ram_bytes) {
  const std::uint64_t split = ram_bytes >= 2816 * mebibyte ? 2 * gibibyte : 2816 * mebibyte;
  return std::min(split, line.max_ram_below_4g.value_or(4 * gibibyte));
}

/// Places blocks one after the other, cutting them at the split and at the low hole.
class Layout {
 public:
  Layout(std::uint64_t below_4g, LowHole hole) : below_4g_(below_4g), hole_(hole) {}

  void append(const RamBlock& block) {
    std::uint64_t done = 0;
    while (done < block.size) {
      const bool below = placed_ < below_4g_;
      const std::uint64_t room = below ? below_4g_ - placed_ : block.size - done;
      const std::uint64_t size = std::min(room, block.size - done);
      const GuestPhys start = below ? GuestPhys(placed_) : four_gib + (placed_ - below_4g_);
      add_around_hole(block, start, done, size);
      done += size;
      placed_ += size;
    }
  }

  void place(const RamBlock& block, GuestPhys start) { add(block, start, 0, block.size); }

  /// Where device memory begins: the GiB after the RAM.
  GuestPhys device_memory() const {
    const std::uint64_t above = placed_ - std::min(placed_, below_4g_);
    return four_gib + (above + gibibyte - 1) / gibibyte * gibibyte;
  }

  std::vector<RamRange> take() { return std::move(ranges_); }

 private:
  void add_around_hole(const RamBlock& block, GuestPhys start, std::uint64_t offset,
                       std::uint64_t size) {
    const GuestPhys end = start + size;
    const GuestPhys before = std::min(end, hole_.start), after = std::max(start, hole_.end);
    if (start < before) add(block, start, offset, before - start);
    if (after < end) add(block, after, offset + (after - start), end - after);
  }

  void add(const RamBlock& block, GuestPhys start, std::uint64_t offset, std::uint64_t size) {
    ranges_.push_back({start, size, block.name, offset, block.host + offset});
  }

  std::uint64_t below_4g_;
  LowHole hole_;
  std::uint64_t placed_ = 0;
  std::vector<RamRange> ranges_;
};

/// QEMU gives each DIMM without an address the lowest free one, in order of creation.
void place_dimms(Layout& layout, const CommandLine& line, std::span<const RamBlock> dimms) {
  constexpr std::uint64_t alignment = 2 * mebibyte;
  GuestPhys next = layout.device_memory();
  for (std::size_t i = 0; i < dimms.size(); ++i) {
    GuestPhys at = next;
    if (i < line.dimms.size() && line.dimms[i].address) at = GuestPhys(*line.dimms[i].address);
    layout.place(dimms[i], at);
    const std::uint64_t end = (at + dimms[i].size).raw();
    next = std::max(next, GuestPhys((end + alignment - 1) / alignment * alignment));
  }
}

/// The part of a range from `from` on, or up to `to`.
RamRange part(const RamRange& range, GuestPhys from, GuestPhys to) {
  const GuestPhys start = std::max(range.start, from), end = std::min(range.end(), to);
  const std::uint64_t cut = start - range.start;
  return {start, start < end ? end - start : 0, range.block, range.block_offset + cut,
          range.host + cut};
}

/// The ranges without the area where the firmware decides.
std::vector<RamRange> comparable(const RamMap& map) {
  constexpr GuestPhys low_start{0xa0000}, low_end{0x100000}, top{~std::uint64_t{0}};
  std::vector<RamRange> parts;
  for (const RamRange& range : map.ranges()) {
    for (const RamRange& piece :
         std::array{part(range, GuestPhys(0), low_start), part(range, low_end, top)}) {
      if (piece.size > 0) parts.push_back(piece);
    }
  }
  return parts;
}

}  // namespace

Result<std::uint64_t> bytes_below_4g(const CommandLine& line, std::uint64_t ram_bytes) {
  VMSIGHT_TRY(const MachineKind kind, machine_kind(line.machine));
  std::uint64_t split = 3 * gibibyte;
  if (kind == MachineKind::pc) split = pc_split(line, ram_bytes);
  if (kind == MachineKind::q35) split = q35_split(line, ram_bytes);
  return std::min(split, ram_bytes);
}

Result<RamMap> derive_ram_map(const CommandLine& line, std::span<const RamBlock> blocks) {
  VMSIGHT_TRY(const MachineKind kind, machine_kind(line.machine));
  if (line.maximum_memory_bytes >= amd_hole - 4 * gibibyte) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "derive RAM layout: close to 1 TiB it depends on the CPU model",
                 .hint = "start QEMU with -qmp unix:PATH,server=on,wait=off to let it tell"};
  }
  const auto main_blocks = blocks.first(std::min(line.main_memory.size(), blocks.size()));
  const auto dimms = blocks.subspan(main_blocks.size());
  std::uint64_t total = 0;
  for (const RamBlock& block : main_blocks) total += block.size;
  if (total != line.memory_bytes || dimms.size() < line.dimms.size()) {
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("derive RAM layout: blocks of {:#x} bytes for -m of {:#x}",
                                        total, line.memory_bytes)};
  }
  VMSIGHT_TRY(const std::uint64_t below, bytes_below_4g(line, total));
  Layout layout(below, kind == MachineKind::microvm ? microvm_bios_hole : vga_hole);
  for (const RamBlock& block : main_blocks) layout.append(block);
  place_dimms(layout, line, dimms);
  return RamMap::from(layout.take());
}

std::string difference(const RamMap& derived, const RamMap& told) {
  const auto ours = comparable(derived);
  auto theirs = comparable(told);
  std::erase_if(theirs, [&](const RamRange& range) {
    return std::none_of(ours.begin(), ours.end(),
                        [&](const RamRange& our) { return our.block == range.block; });
  });
  for (std::size_t i = 0; i < std::max(ours.size(), theirs.size()); ++i) {
    if (i >= ours.size()) return fmt::format("{} is RAM but was not expected", theirs[i].start);
    if (i >= theirs.size()) return fmt::format("{} is not RAM but was expected", ours[i].start);
    const RamRange &a = ours[i], &b = theirs[i];
    if (a.start != b.start || a.size != b.size) {
      return fmt::format("RAM at {}-{} instead of {}-{}", b.start, b.end(), a.start, a.end());
    }
    if (a.block_offset != b.block_offset || a.host != b.host) {
      return fmt::format("RAM at {} is at {} instead of {} in QEMU", a.start, b.host, a.host);
    }
  }
  return "";
}

}  // namespace vmsight
