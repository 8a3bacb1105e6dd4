// A guest with one task and ORC tables, for tests of unwinding: the test writes the rules and the
// stack.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernel/x86_64/orc.h"
#include "support/btf_builder.h"
#include "support/synthetic_guest.h"
#include "support/typed_kernel.h"

namespace vmsight::test {

/// As in 5.10 and 6.1, in 6.12, and in 7.2 (where registers have other numbers).
enum class OrcFormat { with_end_bit, with_signal_bit, renumbered };

/// struct orc_entry and the structures around it, laid out as kernels do.
inline std::unique_ptr<Btf> make_orc_types(OrcFormat format) {
  BtfBuilder b;
  const TypeId s16 = b.integer("short int", 2, 1);
  const TypeId u32 = b.integer("unsigned int", 4);
  const TypeId u64 = b.integer("long unsigned int", 8);
  const TypeId big = b.array(u64, 2048);
  const bool old = format == OrcFormat::with_end_bit;
  b.structure("orc_entry", 6,
              {{"sp_offset", s16, 0},
               {"bp_offset", s16, 16},
               {"sp_reg", u32, 32, 4},
               {"bp_reg", u32, 36, 4},
               {"type", u32, 40, old ? 2u : 3u},
               {old ? "end" : "signal", u32, old ? 42u : 43u, 1}});
  const TypeId thread = b.structure("thread_struct", 16, {{"sp", u64, 64}});
  b.structure("task_struct", 64,
              {{"stack", u64, 64}, {"on_cpu", u32, 128}, {"thread", thread, 192}});
  b.structure("inactive_task_frame", 56, {{"bp", u64, 320}, {"ret_addr", u64, 384}});
  b.structure("pt_regs", 168,
              {{"r13", u64, 128},
               {"bp", u64, 256},
               {"r10", u64, 448},
               {"ax", u64, 640},
               {"dx", u64, 768},
               {"di", u64, 896},
               {"orig_ax", u64, 960},
               {"ip", u64, 1024},
               {"cs", u64, 1088},
               {"sp", u64, 1216}});
  b.structure("irq_stack", 16384, {{"stack", big, 0}});
  const TypeId arch =
      b.structure("mod_arch_specific", 24,
                  {{"num_orcs", u32, 0}, {"orc_unwind_ip", u64, 64}, {"orc_unwind", u64, 128}});
  const TypeId memory = b.structure("module_memory", 16, {{"base", u64, 0}, {"size", u32, 64}});
  const TypeId memories = b.array(memory, 7);
  b.structure("module", 256, {{"list", u64, 64}, {"arch", arch, 256}, {"mem", memories, 512}});
  auto btf = Btf::parse(b.blob());
  VMSIGHT_CHECK(btf.has_value());
  return *std::move(btf);
}

class OrcGuest {
 public:
  using Base = OrcRule::Base;
  struct Entry {
    std::uint64_t code = 0;  // offset in the image
    OrcRule rule;
  };

  static constexpr std::uint64_t text = 0, tables = 0x100000;  // offsets in the image

  explicit OrcGuest(OrcFormat format)
      : kernel(guest.space(), make_orc_types(format)),
        reader(guest.memory(), kernel.space()),
        format_(format) {
    kernel.add_symbol("_stext", guest.image(text));
    kernel.add_symbol("_etext", guest.image(text + 0x10000));
    kernel.add_symbol("ret_from_fork", guest.image(text + 0xf000));
    stack = guest.allocate(16384, 16384);
    task = guest.allocate(64);
    guest.put_pointer(task + 8, stack);
  }

  void put_table(GuestVirt places, GuestVirt entries, const std::vector<Entry>& rows) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const GuestVirt place = places + 4 * i;
      guest.put(place, static_cast<std::int32_t>(guest.image(rows[i].code) - place));
      guest.put(entries + 6 * i, encode(rows[i].rule));
    }
  }

  /// The last function of the text is schedule(), from whose first rule numbers are learnt.
  Result<std::unique_ptr<OrcTables>> make_tables(std::vector<Entry> rows) {
    rows.push_back({0xff00, {OrcRule::Kind::call, Base::sp, Base::undefined, 8}});
    kernel.add_symbol("schedule", guest.image(0xff00));
    const GuestVirt places = guest.image(tables);
    put_table(places, entries(), rows);
    kernel.add_symbol("__start_orc_unwind_ip", places);
    kernel.add_symbol("__stop_orc_unwind_ip", places + 4 * rows.size());
    kernel.add_symbol("__start_orc_unwind", entries());
    return OrcTables::create(kernel, reader);
  }

  /// Where the rules of make_tables() lie.
  GuestVirt entries() const { return guest.image(tables + 0x10000); }

  /// Puts words on the stack so that it ends with them; the first is the saved stack pointer.
  void put_stack(const std::vector<std::uint64_t>& words) {
    sp = stack + 16384 - 8 * words.size();
    guest.write(sp, std::as_bytes(std::span(words)));
    guest.put_pointer(task + 32, sp);
  }
  /// r15 r14 r13 r12 bx bp, then the return address.
  std::vector<std::uint64_t> inactive_frame(std::uint64_t code, std::uint64_t bp = 0) const {
    return {0, 0, 0, 0, 0, bp, guest.image(code).raw()};
  }
  static std::vector<std::uint64_t> pt_regs(std::uint64_t ip, std::uint64_t cs, std::uint64_t sp,
                                            std::uint64_t orig_ax, std::uint64_t bp = 0) {
    std::vector<std::uint64_t> words(21);
    words[4] = bp;
    words[15] = orig_ax;
    words[16] = ip;
    words[17] = cs;
    words[19] = sp;
    return words;
  }
  SyntheticGuest guest;
  TypedKernel kernel;
  Reader reader;
  GuestVirt stack, task, sp;

 private:
  unsigned number(Base base) const {
    constexpr Base first[] = {Base::undefined,   Base::previous_sp, Base::dx,  Base::di,
                              Base::bp,          Base::sp,          Base::r10, Base::r13,
                              Base::bp_indirect, Base::sp_indirect, Base::ax};
    constexpr Base second[] = {Base::undefined,   Base::ax,          Base::dx,         Base::sp,
                               Base::bp,          Base::di,          Base::r10,        Base::r13,
                               Base::previous_sp, Base::sp_indirect, Base::bp_indirect};
    const auto& numbers = format_ == OrcFormat::renumbered ? second : first;
    return static_cast<unsigned>(std::find(numbers, std::end(numbers), base) - numbers);
  }

  std::array<std::uint8_t, 6> encode(const OrcRule& rule) const {
    const bool old = format_ == OrcFormat::with_end_bit;
    const bool end = rule.kind == OrcRule::Kind::end_of_stack;
    unsigned type = static_cast<unsigned>(rule.kind);
    if (old) type = type < 2 ? 0 : type - 2;
    const unsigned flag = old ? (end ? 4u : 0u) : (rule.interrupted ? 8u : 0u);
    const auto sp_offset = static_cast<std::uint16_t>(rule.sp_offset);
    const auto bp_offset = static_cast<std::uint16_t>(rule.bp_offset);
    return {static_cast<std::uint8_t>(sp_offset),
            static_cast<std::uint8_t>(sp_offset >> 8),
            static_cast<std::uint8_t>(bp_offset),
            static_cast<std::uint8_t>(bp_offset >> 8),
            static_cast<std::uint8_t>(number(rule.sp_base) | number(rule.bp_base) << 4),
            static_cast<std::uint8_t>(type | flag)};
  }

  OrcFormat format_;
};

}  // namespace vmsight::test
