// How much of an area is in RAM, by page tables made by hand.
#include "state/residency.h"

#include <gtest/gtest.h>

#include "unit/state_made_up_kernel.h"

namespace vmsight::state_residency_test {
namespace {

using test::MadeUpKernel;
using test::MapSize;
using test::SyntheticGuest;
using test::SyntheticOptions;

constexpr std::uint64_t kib = 1024, mib = 1024 * kib;
// Intel SDM volume 3, 4.5; arch/x86/include/asm/pgtable_types.h.
constexpr std::uint64_t present = 1, user = 4, dirty = 1 << 6, protnone = 1 << 8, special = 1 << 9,
                        saved_dirty = 1ULL << 58, address_bits = 0x000ffffffffff000;
constexpr std::uint64_t page_struct = 64, flag_dirty = 1 << 4;

class ResidencyTest : public ::testing::TestWithParam<bool> {
 protected:
  ResidencyTest() : guest_(SyntheticOptions{.five_level = GetParam()}), kernel_(guest_) {
    kernel_.lack("mm_struct.mm_mt");
    kernel_.lack("huge_zero_pfn");
    kernel_.set_size("page", page_struct);
    kernel_.set_enumerator("PG_dirty", 4);
    pages_ = guest_.allocate(64 * mib / page_size * page_struct, page_size);
    kernel_.set_vmemmap(pages_);
    mm_ = guest_.allocate(4096);
    root_ = guest_.new_address_space();
    kernel_.put(mm_, "mm_struct", "pgd", guest_.direct(root_));
  }

  GuestVirt page_of(GuestPhys frame) { return pages_ + (frame.raw() >> page_shift) * page_struct; }
  void put_page(GuestPhys frame, std::string_view member, std::uint64_t value) {
    kernel_.put(page_of(frame), "page", member, value);
  }
  GuestPhys map(GuestVirt at, std::uint64_t flags) {
    const GuestPhys frame = guest_.allocate_phys(page_size, page_size);
    guest_.map_in(root_, at, frame, MapSize::page_4k, flags);
    return frame;
  }
  GuestPhys map_huge(GuestVirt at, std::uint64_t flags) {
    const GuestPhys frame = guest_.allocate_phys(2 * mib, 2 * mib);
    guest_.map_in(root_, at, frame, MapSize::page_2m, flags);
    return frame;
  }
  /// An entry that the processor does not take for present.
  void put_entry(GuestVirt at, std::uint64_t entry) {
    map(at, present | user);
    guest_.memory().put(guest_.entry_of(root_, at).at, entry);
  }

  MemoryMap measure(GuestVirt start, std::uint64_t size, bool is_hugetlb = false) {
    Reader reader(guest_.memory(), kernel_.space());
    State state;
    StateOptions options;
    Context context{kernel_, reader, options, state, {}, {}};
    auto paths = Paths::resolve(kernel_).value();
    Proofs proofs;
    Shared shared;
    ProcessContext process{context, paths, proofs, shared, part_all};
    MemoryMap area;
    area.start = start.raw();
    area.end = start.raw() + size;
    ResidencyReader::resolve(kernel_).value().measure(process, mm_, is_hugetlb, area);
    return area;
  }
  void expect(GuestVirt start, std::uint64_t size, std::uint64_t rss, std::uint64_t dirty_bytes) {
    const MemoryMap area = measure(start, size);
    EXPECT_EQ(area.rss_bytes, rss);
    EXPECT_EQ(area.dirty_bytes, dirty_bytes);
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_;
  GuestVirt pages_, mm_;
  GuestPhys root_;
  const GuestVirt at_{0x7f00001ff000};  // the last page of a table: areas cross into the next
};

TEST_P(ResidencyTest, CountsWhatIsMappedWithinTheArea) {
  expect(at_, 16 * kib, 0, 0);  // no tables at all
  for (std::uint64_t i = 0; i < 4; ++i) map(at_ + i * page_size, present | user);
  expect(at_, 16 * kib, 16 * kib, 0);
  expect(at_ + page_size, 8 * kib, 8 * kib, 0);
  expect(at_ + page_size, 1 * mib, 12 * kib, 0);
  expect(GuestVirt(page_size), (1ULL << 47) - 2 * page_size, 16 * kib, 0);
}

TEST_P(ResidencyTest, DirtyByTheEntryOrByThePage) {
  map(at_, present | user | dirty);
  map(at_ + page_size, present | user | saved_dirty);
  expect(at_, 12 * kib, 8 * kib, 8 * kib);
  const GuestPhys written = map(at_ + 2 * page_size, present | user);
  expect(at_, 12 * kib, 12 * kib, 8 * kib);
  put_page(written, "flags", flag_dirty);
  expect(at_, 12 * kib, 12 * kib, 12 * kib);
}

TEST_P(ResidencyTest, HugePagesCountWhole) {
  const GuestVirt at(0x7f0000400000);
  const GuestPhys first = map_huge(at, present | user);
  map_huge(at + 2 * mib, present | user | dirty);
  map(at + 4 * mib, present | user);
  expect(at, 8 * mib, 4 * mib + 4 * kib, 2 * mib);
  put_page(first, "flags", flag_dirty);
  expect(at, 8 * mib, 4 * mib + 4 * kib, 4 * mib);
}

TEST_P(ResidencyTest, PagesOfACompoundAskItsHead) {
  const GuestPhys head = guest_.allocate_phys(8 * page_size, 8 * page_size);
  guest_.map_in(root_, at_, head + 3 * page_size, MapSize::page_4k, present | user);
  put_page(head, "flags", flag_dirty);
  expect(at_, 4 * kib, 4 * kib, 0);
  put_page(head + 3 * page_size, "compound_head", page_of(head).raw() | 1);
  expect(at_, 4 * kib, 4 * kib, 4 * kib);
  // The mask that stands there since 7.0: of the address, with bit 0 for the mark.
  put_page(head + 3 * page_size, "compound_head", ~(8 * page_struct - 1) | 1);
  expect(at_, 4 * kib, 4 * kib, 4 * kib);
}

TEST_P(ResidencyTest, ZeroPagesAndWhatIsNoPageOfTheKernelAreNotResident) {
  map(at_, present | user | special);
  const GuestVirt huge(0x7f0000800000);
  const GuestPhys zero = map_huge(huge, present | user);
  map(at_ + page_size, present | user);
  expect(at_, 32 * mib, 2 * mib + 4 * kib, 0);
  guest_.put_pointer(*kernel_.symbol("huge_zero_page"), page_of(zero));
  expect(at_, 32 * mib, 4 * kib, 0);
  guest_.map_in(root_, at_ + page_size, GuestPhys(1ULL << 40), MapSize::page_4k, present | user);
  expect(at_, 32 * mib, 0, 0);  // not RAM: a device's
}

TEST_P(ResidencyTest, SwapEntriesAreOutAndProtNoneIsIn) {
  put_entry(at_, 0x00007ffffffff000 << 5);
  expect(at_, 4 * kib, 0, 0);
  const GuestPhys frame = guest_.allocate_phys(page_size, page_size);
  put_page(frame, "flags", flag_dirty);
  // Against L1TF the address of an entry that the processor must not follow is inverted.
  put_entry(at_, (~frame.raw() & address_bits) | protnone | user);
  expect(at_, 4 * kib, 4 * kib, 4 * kib);
}

TEST_P(ResidencyTest, HugetlbIsCountedElsewhere) {
  const GuestVirt at(0x7f0000400000);
  map_huge(at, present | user | dirty);
  const MemoryMap area = measure(at, 2 * mib, true);
  EXPECT_EQ(area.rss_bytes, 0);
  EXPECT_EQ(area.dirty_bytes, 0);
}

TEST_P(ResidencyTest, ATableOutsideRamIsUnknownNotZero) {
  map(at_, present | user);
  guest_.memory().put(root_ + ((at_.raw() >> (GetParam() ? 48 : 39)) & 511) * 8,
                      (1ULL << 40) | present | user);
  EXPECT_FALSE(measure(at_, 4 * kib).rss_bytes);
  EXPECT_FALSE(measure(at_, 4 * kib).dirty_bytes);
}

INSTANTIATE_TEST_SUITE_P(Levels, ResidencyTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "Five" : "Four"; });

}  // namespace
}  // namespace vmsight::state_residency_test
