// idt: the gates of the interrupt descriptor table.
//
//   gate   offset 0..15 | selector | ist, type, dpl, present | offset 16..31 | offset 32..63 | 0
//
// Intel SDM vol. 3A, 6.14.1. The CPUs use a read-only alias of idt_table, which idt_descr names.
#include <fmt/format.h>

#include "detect/integrity/checks.h"

namespace vmsight {
namespace {

constexpr unsigned vectors = 256, gate_size = 16;
constexpr std::uint16_t kernel_code = 0x10;  // __KERNEL_CS, arch/x86/include/asm/segment.h

struct Gate {
  GuestVirt handler;
  std::uint16_t selector = 0;
  bool present = false;
  unsigned privilege = 0;
};

Gate read_gate(Reader& reader, GuestVirt at) {
  const std::uint64_t low = reader.u64(at), high = reader.u64(at + 8);
  return {.handler = GuestVirt((low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32),
          .selector = static_cast<std::uint16_t>(low >> 16),
          .present = (low >> 47 & 1) != 0,
          .privilege = static_cast<unsigned>(low >> 45 & 3)};
}

/// What the kernel's own gates lead to.
bool is_entry(const KernelPlaces& places, GuestVirt handler) {
  const std::string name = places.name(handler);
  for (const char* prefix : {"asm_", "xen_asm_", "irq_entries_start", "spurious_entries_start",
                             "entry_INT80_compat", "early_idt_handler", "int80_emulation"}) {
    if (name.starts_with(prefix)) return true;
  }
  for (const Symbol& symbol : places.symbols_at(handler)) {
    if (symbol.name.starts_with("asm_")) return true;
  }
  // Stubs of 8 or 16 bytes each; symbols of their own may stand between them.
  return name.find("_entries_start") != name.npos;
}

void check_gate(Look& look, unsigned vector, GuestVirt at, const Gate& gate) {
  Finding finding{.object = fmt::format("idt_table[{}]", vector),
                  .sources = {"idt_table"},
                  .sureness = Sureness::certain,
                  .address = at};
  const std::string target = look.places.name(gate.handler);
  if (!look.places.in_kernel_text(gate.handler)) {
    finding.what = fmt::format("vector {} leads to {}, outside the kernel's text", vector, target);
  } else if (gate.selector != kernel_code) {
    finding.what = fmt::format("vector {} has the code segment {:#x}", vector, gate.selector);
  } else if (!is_entry(look.places, gate.handler)) {
    finding.what =
        fmt::format("vector {} leads to {}, which is no entry of the kernel", vector, target);
    finding.sureness = Sureness::likely;
  } else {
    return;
  }
  look.find(std::move(finding));
}

/// The table that CPUs load is the one that was looked at.
void check_descriptor(Look& look, GuestVirt table) {
  const auto descriptor = look.kernel.symbol("idt_descr");
  if (!descriptor) return;
  const GuestVirt used = look.reader.pointer(*descriptor + 2);  // after the u16 limit
  if (!look.reader.ok()) return;
  const AddressSpace& space = look.reader.space();
  const auto at = space.translate(look.reader.memory(), used);
  const auto expected = space.translate(look.reader.memory(), table);
  if (!at || !expected || *at == *expected) return;
  look.find({.what = fmt::format("idt_descr names a table at {}, which is not idt_table", used),
             .object = "idt_descr",
             .sources = {"idt_descr", "idt_table"},
             .sureness = Sureness::certain,
             .address = *descriptor});
}

Result<void> check_idt(Look& look) {
  const auto table = look.kernel.symbol("idt_table");
  if (!table) return lacks("idt_table");
  for (unsigned vector = 0; vector < vectors; ++vector) {
    const GuestVirt at = *table + vector * gate_size;
    const Gate gate = read_gate(look.reader, at);
    if (!look.reader.ok()) return unreadable("idt_table");
    if (!gate.present) continue;
    check_gate(look, vector, at, gate);
    ++look.looked_at;
  }
  check_descriptor(look, *table);
  return {};
}

}  // namespace

extern const IntegrityCheck idt_check{
    .info = {.name = "idt",
             .what = "gates of the interrupt table lead to the kernel's entries",
             .family = "kernel"},
    .run = check_idt,
};

}  // namespace vmsight
