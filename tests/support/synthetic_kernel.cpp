#include "support/synthetic_kernel.h"

#include <algorithm>

#include "support/btf_builder.h"

namespace vmsight::test {
namespace {

constexpr std::uint64_t mib = 1U << 20;
constexpr std::uint64_t rodata_at = 2 * mib, data_at = 4 * mib, end_at = 6 * mib;
constexpr std::uint64_t notes_at = rodata_at + 0x1000, btf_at = rodata_at + 0x2000;
constexpr std::uint64_t kallsyms_at = rodata_at + 0x10000, tables_at = data_at + mib;
constexpr std::uint64_t init_task_at = data_at, variables_at = data_at + 0x1000;
constexpr std::uint64_t present = 1, writable = 2, user = 4, large = 1U << 7;

std::vector<std::byte> btf_blob() {
  BtfBuilder types;
  const TypeId character = types.integer("char", 1);
  const TypeId name = types.array(character, 16);
  types.structure("task_struct", 128, {{"comm", name, synthetic_comm_offset * 8}});
  types.enumeration("answers", {{"ANSWER", 42}}, false);
  return types.blob();
}

class Planter {
 public:
  Planter(ByteMemory& memory, const KernelSpec& spec) : memory_(memory), spec_(spec) {}

  PlantedKernel plant() {
    put_text(spec_.banner_offset + rodata_at, spec_.banner + "\n");
    put_notes();
    put_variables();
    put_types();
    put_page_tables();
    put_kallsyms();
    planted_.rodata = at(rodata_at);
    planted_.banner = at(rodata_at + spec_.banner_offset);
    planted_.size = end_at;
    return planted_;
  }

 private:
  GuestPhys at(std::uint64_t offset) const { return spec_.text + offset; }
  template <typename T>
  void put(std::uint64_t offset, T value) {
    memory_.put(at(offset), value);
  }
  void put_text(std::uint64_t offset, std::string_view text) {
    memory_.write(at(offset), std::as_bytes(std::span(text)));
  }
  void name(std::string_view symbol, std::uint64_t offset, char type = 'D') {
    symbols_.push_back({std::string(symbol), type, offset});
  }

  /// {4, 20, NT_GNU_BUILD_ID, "GNU"} after a note of another kind.
  void put_notes() {
    const std::uint32_t words[] = {6, 1, 0x100, 0x756e694c, 0x78, 0, 4, 20, 3, 0x554e47};
    memory_.write(at(notes_at), std::as_bytes(std::span(words)));
    memory_.write(at(notes_at + sizeof words), std::vector<std::byte>(20, spec_.build_id));
    name("__start_notes", notes_at, 'R');
    name("__stop_notes", notes_at + sizeof words + 20, 'R');
  }

  void put_variables() {
    put_text(init_task_at + synthetic_comm_offset, "swapper/0");
    name("init_task", init_task_at);
    std::uint64_t next = variables_at;
    const auto variable = [&](std::string_view symbol, std::uint64_t value) {
      name(symbol, next);
      put(next, value);
      next += 8;
      return next - 8;
    };
    variable("page_offset_base", spec_.page_offset.raw());
    variable("vmemmap_base", spec_.vmemmap.raw());
    variable("nr_cpu_ids", spec_.cpus);
    variable("__cpu_possible_mask", (1ULL << spec_.cpus) - 1);
    variable("crash_ipi_issued", spec_.crashed ? 1 : 0);
    planted_.jiffies = at(variable("jiffies_64", spec_.jiffies));
    planted_.init_task = at(init_task_at);
    name("__per_cpu_offset", next);
    for (unsigned cpu = 0; cpu < spec_.cpus; ++cpu) put(next + cpu * 8, (cpu + 1) * mib);
  }

  void put_types() {
    const auto blob = btf_blob();
    if (!spec_.btf) return;
    memory_.write(at(btf_at), blob);
    name("__start_BTF", btf_at, 'R');
    name("__stop_BTF", btf_at + blob.size(), 'R');
  }

  std::uint64_t new_table() {
    next_table_ += page_size;
    return next_table_ - page_size;
  }
  void set_entry(std::uint64_t table, std::uint64_t index, std::uint64_t value) {
    put(table + index * 8, value);
  }
  void link(std::uint64_t table, std::uint64_t index, std::uint64_t to) {
    set_entry(table, index, at(to).raw() | present | writable | user);
  }

  /// The kernel's root, and behind it what page-table isolation gives to user mode: the same
  /// image directory with only the second 2 MiB in it, and no direct map.
  void put_page_tables() {
    const std::uint64_t root = new_table(), user_root = new_table();
    const std::uint64_t directory = new_table(), user_directory = new_table();
    planted_.page_table = at(root);
    planted_.user_table = at(user_root);
    name("init_top_pgt", root);
    if (!spec_.started) return;
    fill_directory(directory);
    set_entry(user_directory, slot_of(2 * mib), at(2 * mib).raw() | present | large);
    put_image(root, directory);
    put_image(user_root, user_directory);
    put_direct_map(root);
  }
  std::uint64_t slot_of(std::uint64_t offset) const {
    return (spec_.text_va + offset).raw() >> 21 & 511;
  }
  void fill_directory(std::uint64_t directory) {
    for (std::uint64_t offset = 0; offset < end_at; offset += 2 * mib)
      set_entry(directory, slot_of(offset), at(offset).raw() | present | writable | large);
    if (!spec_.small_pages) return;
    const std::uint64_t pages = new_table();
    for (std::uint64_t i = 0; i < 512; ++i)
      set_entry(pages, i, at(i * page_size).raw() | present | writable);
    link(directory, slot_of(0), pages);
  }
  void put_image(std::uint64_t root, std::uint64_t directory) {
    const std::uint64_t third = new_table();
    link(third, 510, directory);
    link(descend(root, 511), 511, third);
  }
  /// The table of the fourth level for an entry of the root.
  std::uint64_t descend(std::uint64_t root, std::uint64_t index) {
    if (!spec_.five_level) return root;
    const std::uint64_t fourth = new_table();
    link(root, index, fourth);
    return fourth;
  }
  void put_direct_map(std::uint64_t root) {
    const std::uint64_t va = spec_.page_offset.raw();
    const std::uint64_t third = new_table();
    set_entry(third, va >> 30 & 511, present | writable | large);
    link(descend(root, va >> 48 & 511), va >> 39 & 511, third);
  }

  void put_kallsyms() {
    name("_text", 0, 'T');
    name("__start_rodata", rodata_at, 'R');
    name("linux_banner", rodata_at + spec_.banner_offset, 'R');
    name("_end", end_at, 'B');
    for (SyntheticSymbol& filler : filler_symbols(600, 0x1000)) symbols_.push_back(filler);
    std::stable_sort(symbols_.begin(), symbols_.end(),
                     [](const auto& a, const auto& b) { return a.value < b.value; });
    const bool from_slot = spec_.encoding == KallsymsLayout::Encoding::from_slot;
    if (spec_.encoding == KallsymsLayout::Encoding::absolute_percpu)
      symbols_.insert(symbols_.begin(), {"cpu_number", 'A', 0x1000, true});
    const std::uint64_t text = from_slot ? 0 - kallsyms_at : spec_.text_va.raw();
    const auto built = build_kallsyms(
        {.order = spec_.order, .encoding = spec_.encoding, .symbols = symbols_, .text = text});
    memory_.write(at(kallsyms_at), built.bytes);
    planted_.kallsyms = at(kallsyms_at);
  }

  ByteMemory& memory_;
  const KernelSpec& spec_;
  PlantedKernel planted_;
  std::uint64_t next_table_ = tables_at;
  std::vector<SyntheticSymbol> symbols_;
};

}  // namespace

PlantedKernel plant_kernel(ByteMemory& memory, const KernelSpec& spec) {
  return Planter(memory, spec).plant();
}

}  // namespace vmsight::test
