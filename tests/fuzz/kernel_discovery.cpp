// find_kernel() and everything behind it on a small RAM with planted kernels, patched.
//
// Input: a byte for the shape, one for options, then patches {u8 region, u16 where, u8 count,
// bytes} of the regions that discovery reads.
#include <array>

#include "kernel/btf.h"
#include "support/fuzz_input.h"
#include "support/synthetic_kernel.h"
#include "vmsight/kernel.h"

namespace {

using namespace vmsight;
using test::ByteMemory;
using test::KernelSpec;
using test::PlantedKernel;
using test::TableOrder;
using Encoding = KallsymsLayout::Encoding;

constexpr std::uint64_t mib = 1U << 20;

const KernelSpec shapes[] = {
    {.text = GuestPhys(2 * mib), .order = TableOrder::old},
    {.text = GuestPhys(2 * mib), .order = TableOrder::old_with_seqs},
    {.text = GuestPhys(2 * mib), .small_pages = true},
    {.text = GuestPhys(2 * mib), .page_offset = GuestVirt(0xff11000000000000), .five_level = true},
    {.text = GuestPhys(2 * mib), .encoding = Encoding::from_slot},
};

/// Where a patch may go, relative to the image: start and size.
struct Region {
  std::uint64_t start, size;
};
constexpr Region regions[] = {
    {2 * mib, 0x1000},            // version text
    {2 * mib + 0x1000, 0x100},    // notes
    {2 * mib + 0x2000, 0x1000},   // BTF
    {2 * mib + 0x10000, 0x8000},  // kallsyms
    {4 * mib, 0x2000},            // task and variables
    {5 * mib, 0x8000},            // page tables
};

/// A RAM with one kernel, made once; patches are undone after each input.
struct Target {
  ByteMemory memory{{{GuestPhys(0), 10 * mib}}};
  PlantedKernel planted;
  GuestPhys text;
  std::vector<std::byte> clean;

  explicit Target(const KernelSpec& spec)
      : planted(test::plant_kernel(memory, spec)), text(spec.text) {
    for (const Region& region : regions) {
      const auto bytes = memory.at(text + region.start).first(region.size);
      clean.insert(clean.end(), bytes.begin(), bytes.end());
    }
  }
  void restore() {
    std::size_t done = 0;
    for (const Region& region : regions) {
      memory.write(text + region.start, std::span(clean).subspan(done, region.size));
      done += region.size;
    }
  }
  void patch(test::FuzzInput& input) {
    const Region& region = regions[input.take<std::uint8_t>() % std::size(regions)];
    const std::uint64_t at = input.take<std::uint16_t>() % region.size;
    const auto bytes = input.take_bytes(input.take<std::uint8_t>() % 32);
    memory.write(text + region.start + at,
                 bytes.first(std::min<std::size_t>(bytes.size(), region.size - at)));
  }
};

void use(Kernel& kernel, GuestMemory& memory) {
  static_cast<void>(kernel.symbols());
  static_cast<void>(kernel.locate(kernel.space().image().start + 0x1234));
  static_cast<void>(kernel.member("task_struct", "comm"));
  static_cast<void>(kernel.member("module:type", "member"));
  for (const char* name : {"init_task", "cpu_number", "absent"}) {
    const auto address = kernel.symbol(name);
    if (address) static_cast<void>(kernel.space().translate(memory, *address));
  }
  for (std::size_t cpu = 0; cpu < kernel.per_cpu_offsets().size(); ++cpu) {
    static_cast<void>(kernel.space().translate(memory, kernel.per_cpu(GuestVirt(0x1000), cpu)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::array<std::unique_ptr<Target>, std::size(shapes)> targets;
  test::FuzzInput input(data, size);
  const std::size_t shape = input.take<std::uint8_t>() % std::size(shapes);
  if (!targets[shape]) targets[shape] = std::make_unique<Target>(shapes[shape]);
  Target& target = *targets[shape];
  FindKernelOptions options;
  const auto choice = input.take<std::uint8_t>();
  if ((choice & 1) != 0) options.cr3 = {target.planted.page_table.raw()};
  if ((choice & 2) != 0) options.choose = "0";
  while (!input.empty()) target.patch(input);
  const auto kernel = find_kernel(target.memory, options);
  if (kernel) use(**kernel, target.memory);
  target.restore();
  return 0;
}
