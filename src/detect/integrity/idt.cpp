// idt: the gates of the interrupt descriptor table.
//
//   gate   offset 0..15 | selector | ist, type, dpl, present | offset 16..31 | offset 32..63 | 0
//
// Intel SDM vol. 3A, 6.14.1. The CPUs use a read-only alias of idt_table, which idt_descr names.
#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"

namespace vmsight {
namespace {

constexpr unsigned vectors = 256, gate_size = 16, first_external = 32;
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

/// Stubs of one size each, one a vector.
bool is_stub(Look& look, const char* first, GuestVirt handler, std::uint64_t vectors_before,
             unsigned vector) {
  const auto start = look.kernel.symbol(first);
  if (!start || handler < *start) return false;
  for (const std::uint64_t size : {8U, 16U, 32U}) {  // IDT_ALIGN, arch/x86/include/asm/idtentry.h
    const std::uint64_t index = vector - vectors_before;
    if (vectors_before != 0 ? handler == *start + index * size
                            : handler - *start < 32 * size && (handler - *start) % size == 0)
      return true;
  }
  return false;
}

/// Exceptions that the kernel does not use lead to its early handlers, in memory that was freed
/// since: 32 of 9 or 13 bytes (EARLY_IDT_HANDLER_SIZE).
bool is_early_handler(Look& look, unsigned vector, GuestVirt handler) {
  const auto start = look.kernel.symbol("early_idt_handler_array");
  if (!start || vector >= first_external) return false;
  return handler == *start + vector * 9 || handler == *start + vector * 13;
}

/// What the kernel's own gates lead to.
bool is_entry(Look& look, unsigned vector, GuestVirt handler) {
  for (const Symbol& symbol : look.places.symbols_at(handler)) {
    for (const char* prefix : {"asm_", "xen_asm_", "entry_INT80_compat", "int80_emulation"}) {
      if (symbol.name.starts_with(prefix)) return true;
    }
  }
  return vector >= first_external &&
         (is_stub(look, "irq_entries_start", handler, first_external, vector) ||
          is_stub(look, "spurious_entries_start", handler, 0, vector));
}

void check_gate(Look& look, unsigned vector, GuestVirt at, const Gate& gate) {
  Finding finding{.object = fmt::format("idt_table[{}]", vector),
                  .sources = {"idt_table"},
                  .sureness = Sureness::certain,
                  .address = at};
  if (gate.selector == kernel_code && is_early_handler(look, vector, gate.handler)) return;
  const std::string target = look.places.name(gate.handler);
  if (!look.places.in_kernel_text(gate.handler)) {
    finding.what = fmt::format("vector {} leads to {}, outside the kernel's text", vector, target);
  } else if (gate.selector != kernel_code) {
    finding.what = fmt::format("vector {} has the code segment {:#x}", vector, gate.selector);
  } else if (!is_entry(look, vector, gate.handler)) {
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
