#include "probe/page_cache.h"

#include <gtest/gtest.h>

#include "support/synthetic_guest.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::probe_page_cache_test {
namespace {

using namespace test;

class Cache : public ::testing::Test {
 protected:
  static constexpr std::uint32_t page_bytes = 64;
  Cache() : kernel_(guest_), space_(guest_.space()), reader_(guest_.memory(), space_) {
    kernel_.set_size("page", page_bytes);
    kernel_.set("xa_node", "shift", {.offset = 0, .size = 1});
    kernel_.set("xa_node", "slots", {.offset = 64, .size = 512});
    vmemmap_ = guest_.allocate(page_bytes * (64 * mib / page_size), 4096);
    kernel_.set_vmemmap(vmemmap_);
    inode_ = guest_.allocate(256);
    mapping_ = guest_.allocate(256);
    kernel_.put(inode_, "inode", "i_mapping", mapping_.raw());
    kernel_.put(inode_, "inode", "i_size", std::uint64_t{200 * page_size});
    cache_ = PageCache::resolve(kernel_).value();
  }
  /// A page of RAM with its descriptor; what the tree holds for it.
  std::uint64_t make_page(std::uint64_t index, std::uint64_t pages = 1) {
    const GuestPhys at = guest_.allocate_phys(pages * page_size, page_size);
    for (std::uint64_t i = 0; i < pages; ++i)
      guest_.put(guest_.direct(at) + i * page_size, index + i + 1000);
    const GuestVirt page = vmemmap_ + at.pfn() * page_bytes;
    kernel_.put(page, "folio", "index", index);
    kernel_.put(page, "folio", "mapping", mapping_.raw());
    return page.raw();
  }
  GuestVirt make_node(std::uint8_t shift) {
    const GuestVirt node = guest_.allocate(64 + 512);
    guest_.put(node, shift);
    return node;
  }
  void slot(GuestVirt node, unsigned number, std::uint64_t entry) {
    guest_.put(node + 64 + number * 8, entry);
  }
  static std::uint64_t as_entry(GuestVirt node) { return node.raw() | 2; }
  void head(std::uint64_t entry) {
    kernel_.put(mapping_, "address_space", "i_pages.xa_head", entry);
  }
  /// The number that make_page() wrote, 0 if the page is not there.
  std::uint64_t content(std::uint64_t index) {
    reader_.flush();
    const auto at = cache_.page(reader_, inode_, index);
    std::uint64_t value = 0;
    if (at) read_phys(guest_.memory(), *at, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_;
  AddressSpace space_;
  Reader reader_;
  GuestVirt vmemmap_, inode_, mapping_;
  PageCache cache_;
};

TEST_F(Cache, FindsPagesByTheirIndex) {
  EXPECT_EQ(content(0), 0u);
  head(make_page(0));
  EXPECT_EQ(content(0), 1000u);
  EXPECT_EQ(content(1), 0u);
  const GuestVirt top = make_node(6), low = make_node(0);
  head(as_entry(top));
  slot(top, 1, as_entry(low));
  slot(low, 5, make_page(69));
  EXPECT_EQ(content(69), 1069u);
  EXPECT_EQ(content(5), 0u);
  EXPECT_EQ(content(68), 0u);
  EXPECT_EQ(content(69 + 4096), 0u);  // beyond the tree
}

TEST_F(Cache, KnowsLargeFoliosAndShadows) {
  const GuestVirt node = make_node(0);
  head(as_entry(node));
  slot(node, 4, make_page(4, 4));
  for (unsigned i = 5; i < 8; ++i) slot(node, i, 4 << 2 | 2);  // siblings of slot 4
  slot(node, 9, 0x1235);  // the shadow of a page that was dropped
  EXPECT_EQ(content(4), 1004u);
  EXPECT_EQ(content(7), 1007u);
  EXPECT_EQ(content(9), 0u);
}

TEST_F(Cache, BelievesNoForgedTree) {
  const GuestVirt node = make_node(0);
  head(as_entry(node));
  slot(node, 0, as_entry(node));  // a circle
  EXPECT_EQ(content(0), 0u);
  slot(node, 1, make_page(9));  // the page of another index
  EXPECT_EQ(content(1), 0u);
  const std::uint64_t stolen = make_page(2);
  kernel_.put(GuestVirt(stolen), "folio", "mapping", std::uint64_t{1});  // of another file
  slot(node, 2, stolen);
  EXPECT_EQ(content(2), 0u);
  slot(node, 3, 0xffff000000000000);  // nowhere
  EXPECT_EQ(content(3), 0u);
  guest_.put(node, std::uint8_t{200});
  EXPECT_EQ(content(1), 0u);
  EXPECT_TRUE(reader_.ok());
}

TEST_F(Cache, ReadsAcrossPages) {
  const GuestVirt node = make_node(0);
  head(as_entry(node));
  slot(node, 0, make_page(0));
  slot(node, 1, make_page(1));
  reader_.flush();
  CachedFile file(cache_, reader_, inode_);
  EXPECT_EQ(file.size(), 200 * page_size);
  std::vector<std::byte> bytes(page_size + 8);
  ASSERT_TRUE(file.read(0, bytes));
  std::uint64_t second = 0;
  std::memcpy(&second, bytes.data() + page_size, 8);
  EXPECT_EQ(second, 1001u);
  EXPECT_FALSE(file.read(page_size, bytes));  // the third page is not there
  EXPECT_FALSE(file.read(~0ULL - 4, bytes));
}

}  // namespace
}  // namespace vmsight::probe_page_cache_test
