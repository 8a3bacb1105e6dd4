// The eBPF program of engine kvm, compiled for this machine, beside the reading of the gdbstub's engine: the same memory,
// the same orders, and every value and verdict must be the same.
#include <gtest/gtest.h>
#include <cstring>
#include <set>

#include "probe/filter.h"
#include "probe/hit_memory.h"
#include "probe/kvm/translate.h"
#include "support/ebpf/program.h"
#include "support/synthetic_guest.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::probe_program_test {
namespace {

using namespace test;
using What = ProbeFetch::What;
using Field = FilterTerm::Field;
using Compare = FilterTerm::Compare;

constexpr GuestVirt user_page{0x7f0000400000};
constexpr std::uint64_t entry_rip = 0xffffffff81234569, return_rip = 0xffffffff81234579;

class ProbeProgram : public ::testing::Test {
 protected:
  ProbeProgram() : space_(guest_.space()), reader_(guest_.memory(), space_) {
    root_ = guest_.new_address_space();
    for (std::uint64_t i = 0; i < 2; ++i) {  // neighbours there, and not in RAM
      pages_[i] = guest_.allocate_phys(page_size, page_size);
      guest_.allocate_phys(page_size, page_size);
      guest_.map_in(root_, user_page + i * page_size, pages_[i]);
    }
    task_ = guest_.allocate(4096);
    name_task("worker");
    guest_.put(task_ + 8, std::int32_t{42});
    guest_.put(task_ + 12, std::int32_t{40});
    begin();
  }

  /// The program anew, with what it is told of the guest.
  void begin() {
    kvm::guest guest{};
    guest.tgid = 4711;
    for (const RamRange& range : guest_.memory().ram().ranges()) {
      const auto host = reinterpret_cast<std::uint64_t>(guest_.memory().at(range.start).data());
      guest.ranges[guest.range_count++] = {range.start.raw(), range.end().raw(),
                                           host - range.start.raw()};
    }
    const auto window = [](const AddressSpace::Window& from) {
      return kvm::window{from.start.raw(), from.end.raw(), from.delta};
    };
    guest.direct_map = window(space_.direct_map());
    guest.image = window(space_.image());
    guest.root = space_.root().raw();
    guest.pid_offset = 8;
    guest.tgid_offset = 12;
    guest.comm_offset = 16;
    const GuestPhys current = guest_.allocate_phys(8, 8);
    guest_.memory().put(current, task_.raw());
    guest.current[0] = reinterpret_cast<std::uint64_t>(guest_.memory().at(current).data());
    native_program_begin(&guest);
  }

  void name_task(std::string_view name) {
    std::array<char, 16> comm{};
    std::memcpy(comm.data(), name.data(), name.size());
    guest_.put(task_ + 16, comm);
  }

  void set(const ProbeOrder& order) {
    const auto described = kvm::describe_probe(order);
    ASSERT_TRUE(described) << described.error().message;
    native_program_set_probe(0, &*described);
    kvm::trap trap{};
    trap.kind = order.site.at_return ? kvm::trap_entry : kvm::trap_in_place;
    trap.count = 1;
    trap.early = kvm::filters_early(order);
    native_program_set_trap(entry_rip, &trap);
    trap.kind = kvm::trap_return;
    trap.early = 0;
    if (order.site.at_return) native_program_set_trap(return_rip, &trap);
  }

  /// The vCPU comes to the trap. Registers as ProbeRegisters has them.
  std::optional<Hit> hit(std::uint64_t rip = entry_rip) {
    const std::array<std::uint64_t, 16>& general = registers_.general;
    const std::array<std::uint64_t, 16> kvms = {
        general[reg::rax], general[reg::rcx], general[reg::rdx],
        general[reg::rbx], general[reg::rsp], general[reg::rbp],
        general[reg::rsi], general[reg::rdi], general[8],
        general[9],        general[10],       general[reg::rsp],  // R11: of a trampoline it is RSP
        general[12],       general[13],       general[14],
        general[15]};
    native_program_hit(rip, kvms.data(), root_.raw(), 0);
    std::size_t size = 0;
    const void* bytes = native_program_event(&size);
    if (bytes == nullptr) return std::nullopt;
    Hit hit;
    const auto read = kvm::read_event({static_cast<const std::byte*>(bytes), size},
                                      {.address = GuestVirt(1)}, hit);
    EXPECT_TRUE(read) << read.error().message;
    return hit;
  }

  kvm::counters counters() const {
    kvm::counters found;
    std::memcpy(&found, native_program_counters(0), sizeof(found));
    return found;
  }

  std::vector<Fetched> by_gdbstub(std::span<const ProbeFetch> fetches) {
    HitMemory memory(reader_, root_.raw());
    ProbeRegisters registers = registers_;
    registers.known = reg::all_general;
    std::vector<Fetched> all;
    for (const ProbeFetch& fetch : fetches)
      all.push_back(memory.fetch(fetch, registers, registers, GuestVirt()));
    return all;
  }

  static void expect_same(const std::vector<Fetched>& kvms, const std::vector<Fetched>& gdbs,
                          const std::string& what) {
    ASSERT_EQ(kvms.size(), gdbs.size()) << what;
    for (std::size_t i = 0; i < gdbs.size(); ++i) {
      EXPECT_EQ(kvms[i].ok, gdbs[i].ok) << what << ", value " << i;
      EXPECT_EQ(kvms[i].has_value, gdbs[i].has_value) << what << ", value " << i;
      if (gdbs[i].has_value) EXPECT_EQ(kvms[i].value, gdbs[i].value) << what << ", value " << i;
      if (!gdbs[i].ok) continue;
      EXPECT_EQ(kvms[i].bytes, gdbs[i].bytes) << what << ", value " << i;
      EXPECT_EQ(kvms[i].cut, gdbs[i].cut) << what << ", value " << i;
    }
  }

  /// A text in the two pages, ended by its NUL, or by nothing.
  GuestVirt put_text(std::uint64_t offset, const std::string& text, bool ended = true) {
    for (std::uint64_t i = 0; i < text.size() + (ended ? 1 : 0); ++i) {
      if (offset + i >= 2 * page_size) break;
      const GuestPhys at = pages_[(offset + i) / page_size] + (offset + i) % page_size;
      guest_.memory().put(at, i < text.size() ? text[i] : '\0');
    }
    return user_page + offset;
  }

  static std::string text_of(std::size_t length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + i % 26);
    return text;
  }

  void expect_same_verdict(ProbeOrder order, std::size_t index, const std::string& text,
                           const std::string& what) {
    const Hit seen{.fetched = by_gdbstub(order.fetches)};
    for (const Compare compare : {Compare::equal, Compare::unequal}) {
      FilterTerm term{
          .field = Field::fetch, .compare = compare, .index = static_cast<std::uint16_t>(index)};
      term.text = text;
      order.filter = {.terms = {term}, .steps = {{}}};
      set(order);
      const std::uint64_t before = counters().filtered;
      const bool told = hit().has_value();
      EXPECT_EQ(told, passes(order.filter, seen))
          << what << ": value " << index << (compare == Compare::equal ? " == " : " != ") << text;
      EXPECT_EQ(counters().filtered - before, told ? 0u : 1u) << what;
    }
  }

  SyntheticGuest guest_;
  AddressSpace space_;
  Reader reader_;
  GuestPhys root_{}, pages_[2];
  GuestVirt task_;
  ProbeRegisters registers_;
};

ProbeFetch text_at(std::uint8_t base) { return {.what = What::string, .base = base, .size = 256}; }

const std::size_t lengths[] = {0,  1,  2,  6,  7,   8,   9,   14,  15,  16,  17,  23,  24,
                               31, 32, 33, 47, 48,  55,  56,  61,  62,  63,  64,  65,  71,
                               72, 95, 96, 97, 100, 127, 128, 200, 254, 255, 256, 257, 300};

TEST_F(ProbeProgram, TextsAreTheGdbstubsAtEveryLengthAndPlace) {
  for (const std::size_t length : lengths) {
    const std::string text = text_of(length);
    std::set<std::uint64_t> places = {0, 5, 8, 1000};
    // Its end, its NUL and its beginning around the first page's end.
    for (std::uint64_t shift = 0; shift < 4; ++shift) {
      if (page_size >= length + shift) places.insert(page_size - length - shift);
      places.insert(page_size - 1 - shift);
    }
    for (const std::uint64_t place : places) {
      for (const std::uint64_t end :
           {std::uint64_t{0}, page_size}) {  // or at the end of all that is there
        const std::string what = fmt::format("length {} at {:#x}", length, place + end);
        guest_.memory().put(pages_[1], std::array<char, 8>{'n', 'e', 'x', 't'});
        registers_.general[reg::rdi] = put_text(place + end, text).raw();
        const ProbeOrder order{.id = 7, .site = {.function = "f"}, .fetches = {text_at(reg::rdi)}};
        set(order);
        const auto seen = hit();
        ASSERT_TRUE(seen) << what;
        expect_same(seen->fetched, by_gdbstub(order.fetches), what);
      }
    }
  }
}

TEST_F(ProbeProgram, FiltersSayTheGdbstubsVerdictAtEveryLengthAndNeighbour) {
  const std::vector<std::vector<ProbeFetch>> neighbours = {
      {},
      {{.base = reg::rsi}},
      {text_at(reg::rsi)},
      {text_at(reg::rsi), text_at(reg::rdi), {.base = reg::rdx}},
      {{.what = What::bytes, .base = reg::rsi, .size = 24}},
      {text_at(reg::r8)},  // a null pointer
  };
  registers_.general[reg::rsi] = put_text(page_size + 2000, "/etc/hostname").raw();
  registers_.general[reg::rdx] = 0x2f2f2f2f2f2f2f2f;
  for (const std::size_t length : lengths) {
    const std::string text = text_of(length);
    registers_.general[reg::rdi] = put_text(100, text).raw();
    for (std::size_t kind = 0; kind < neighbours.size(); ++kind) {
      ProbeOrder order{.id = 7, .site = {.function = "f"}, .fetches = {text_at(reg::rdi)}};
      order.fetches.insert(order.fetches.end(), neighbours[kind].begin(), neighbours[kind].end());
      const std::string what = fmt::format("length {}, neighbours {}", length, kind);
      if (length < 64) expect_same_verdict(order, 0, text, what);
      if (length < 63) expect_same_verdict(order, 0, text + "x", what);
      if (length > 0)
        expect_same_verdict(order, 0, text.substr(0, std::min(length - 1, std::size_t{60})), what);
      expect_same_verdict(order, 0, "/etc/hostname", what);
      if (kind == 2) expect_same_verdict(order, 1, "/etc/hostname", what);
    }
  }
}

TEST_F(ProbeProgram, NullAndMissingTextsAreNotWhatStoodThereBefore) {
  registers_.general[reg::rdi] = put_text(0, "/etc/foo").raw();
  ProbeOrder order{.id = 7, .site = {.function = "f"}, .fetches = {text_at(reg::rdi)}};
  const std::uint64_t pointers[] = {0, 0x10000, 1ULL << 62, user_page.raw() | 1ULL << 50};
  for (const std::uint64_t pointer : pointers) {
    registers_.general[reg::rdi] = user_page.raw();
    expect_same_verdict(order, 0, "/etc/foo", "there");
    registers_.general[reg::rdi] = pointer;
    for (const char* text : {"/etc/foo", "", "x"})
      expect_same_verdict(order, 0, text, fmt::format("pointer {:#x}", pointer));
  }
}

TEST_F(ProbeProgram, AllTextsOfAnEntryAreThereAtItsReturn) {
  for (std::size_t count = 1; count <= kvm::max_fetches; ++count) {
    for (const std::size_t length : {std::size_t{8}, std::size_t{255}, std::size_t{300}}) {
      registers_.general[reg::rdi] = put_text(300, text_of(length)).raw();
      registers_.general[reg::rsp] = 0xffffc90000001000;
      ProbeOrder order{.id = 7, .site = {.at_return = true, .function = "f"}};
      for (std::size_t i = 0; i < count; ++i) order.fetches.push_back(text_at(reg::rdi));
      order.fetches_return = {{.base = reg::rax}};
      set(order);
      EXPECT_FALSE(hit());
      EXPECT_EQ(counters().missed_returns, 1u);
      const auto expected = by_gdbstub(order.fetches);
      registers_.general[reg::rdi] = 0;
      const auto back = hit(return_rip);
      ASSERT_TRUE(back);
      expect_same(back->fetched, expected, fmt::format("{} texts of {}", count, length));
      EXPECT_EQ(counters().missed_returns, 0u);
    }
  }
}

TEST_F(ProbeProgram, ACallerIsWhoItWasAtTheEntry) {
  for (const bool with_arguments : {false, true}) {
    registers_.general[reg::rsp] = 0xffffc90000001000;
    ProbeOrder order{.id = 7, .site = {.at_return = true, .function = "f"}};
    if (with_arguments) order.fetches = {{.base = reg::rdi}};
    order.fetches_return = {{.base = reg::rax}};
    FilterTerm name{.field = Field::comm};
    name.text = "worker";
    for (const bool late : {false, true}) {
      order.filter = {.terms = {name}, .steps = {{}}};
      if (late) {
        order.filter.terms.push_back({.field = Field::fetch_return});
        order.filter.steps.push_back({.term = 1});
        order.filter.steps.push_back({.kind = FilterStep::Kind::both});
      }
      name_task("worker");
      set(order);
      EXPECT_FALSE(hit());
      name_task("renamed");
      const auto back = hit(return_rip);
      ASSERT_TRUE(back) << with_arguments << late;
      EXPECT_EQ(back->task.name(), "worker");
      EXPECT_EQ(back->task.pid, 42);
      EXPECT_FALSE(hit());  // as "renamed": nobody asked for that
      EXPECT_FALSE(hit(return_rip));
    }
  }
}

TEST_F(ProbeProgram, ATextThatComesWithTheCallIsSeenByTheFilter) {
  const GuestVirt text = user_page + 2 * page_size;
  registers_.general[reg::rdi] = text.raw();
  registers_.general[reg::rsp] = 0xffffc90000001000;
  ProbeOrder order{
      .id = 7, .site = {.at_return = true, .function = "f"}, .fetches = {text_at(reg::rdi)}};
  ProbeFetch again = text_at(reg::rdi);
  again.from_entry = true;
  order.fetches_return = {{.base = reg::rax}, again};
  const GuestPhys page = guest_.allocate_phys(page_size, page_size);
  guest_.memory().put(page, std::array<char, 16>{"/etc/foo"});
  for (const Compare compare : {Compare::equal, Compare::unequal}) {
    for (const char* wanted : {"/etc/foo", "/etc/bar"}) {
      FilterTerm term{.field = Field::fetch, .compare = compare, .again = 1};
      term.text = wanted;
      order.filter = {.terms = {term}, .steps = {{}}};
      begin();
      set(order);
      guest_.map_in(root_, text, page, MapSize::page_4k, 0);
      EXPECT_FALSE(hit());
      guest_.map_in(root_, text, page);
      const bool is_same = std::string_view(wanted) == "/etc/foo";
      EXPECT_EQ(hit(return_rip).has_value(), is_same == (compare == Compare::equal)) << wanted;
      EXPECT_EQ(counters().hits, 1u);
      EXPECT_EQ(counters().missed_returns, 0u);
    }
  }
}

TEST_F(ProbeProgram, ReturnsThatNeverComeAreMissed) {
  for (const bool with_arguments : {false, true}) {
    ProbeOrder order{.id = 7, .site = {.at_return = true, .function = "f"}};
    if (with_arguments) order.fetches = {{.base = reg::rdi}};
    begin();
    set(order);
    constexpr std::uint64_t entries = 100;
    for (std::uint64_t i = 0; i < entries; ++i) {
      registers_.general[reg::rsp] = 0xffffc90000001000 + i / 3 * 4096;  // three on the same stack
      if (i == 60) native_program_set_room(0);
      hit();
    }
    std::uint64_t returns = 0;
    for (std::uint64_t i = 0; i < entries; i += 9) {
      registers_.general[reg::rsp] = 0xffffc90000001000 + i / 3 * 4096;
      returns += hit(return_rip).has_value();
    }
    EXPECT_GT(returns, 5u);
    EXPECT_EQ(counters().hits, returns);
    EXPECT_EQ(counters().hits + counters().missed_returns, entries);
  }
}

TEST_F(ProbeProgram, NumbersWithoutATypeAreSignedIfTheFilterSaysSo) {
  ProbeOrder order{.id = 7, .site = {.function = "f"}, .fetches = {{.base = reg::rdi}}};
  for (const std::uint64_t value :
       {std::uint64_t{0}, std::uint64_t{7}, std::uint64_t{0xffffffff}, ~std::uint64_t{0},
        std::uint64_t{0x80000000}, std::uint64_t{0x7f0000000000},
        std::uint64_t{0xfffffffffffffffe}}) {
    registers_.general[reg::rdi] = value;
    const Hit seen{.fetched = by_gdbstub(order.fetches)};
    for (const bool may_be_int : {false, true}) {
      for (const Compare compare : {Compare::equal, Compare::less, Compare::greater_equal}) {
        for (const std::int64_t number : {std::int64_t{-1}, std::int64_t{0}, std::int64_t{7}}) {
          order.filter = {.terms = {{.field = Field::fetch,
                                     .compare = compare,
                                     .may_be_int = may_be_int,
                                     .number = number}},
                          .steps = {{}}};
          set(order);
          EXPECT_EQ(hit().has_value(), passes(order.filter, seen)) << value << " " << number;
        }
      }
    }
  }
}

}  // namespace
}  // namespace vmsight::probe_program_test
