#include "probe/kvm/file_place.h"

#include <gtest/gtest.h>

#include "probe/kvm/hypercall.h"
#include "support/synthetic_guest.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::probe_file_place_test {
namespace {

using namespace test;
using State = FilePlaces::State;

const std::string trap{"\x3e\x0f\x01\xd9"};
constexpr std::uint32_t page_bytes = 64;
constexpr std::uint64_t offset = 0x230;  // of the function, in page 0 of the file

class Place : public ::testing::Test {
 protected:
  Place() : kernel_(guest_), space_(guest_.space()), reader_(guest_.memory(), space_) {
    kernel_.set_size("page", page_bytes);
    kernel_.set("xa_node", "shift", {.offset = 0, .size = 1});
    kernel_.set("xa_node", "slots", {.offset = 64, .size = 512});
    vmemmap_ = guest_.allocate(page_bytes * (64 * mib / page_size), 4096);
    kernel_.set_vmemmap(vmemmap_);
    inode_ = guest_.allocate(256);
    mapping_ = guest_.allocate(256);
    kernel_.put(inode_, "inode", "i_mapping", mapping_.raw());
    kernel_.put(inode_, "inode", "i_size", std::uint64_t{page_size});
    kernel_.put(inode_, "inode", "i_sb", std::uint64_t{0xffff888000123000});
    kernel_.put(inode_, "inode", "i_ino", std::uint64_t{77});
    kernel_.put(inode_, "inode", "i_generation", std::uint32_t{5});
    kernel_.put(mapping_, "address_space", "i_pages.xa_head", std::uint64_t{0});
    kernel_.put(mapping_, "folio", "index", std::uint64_t{0});  // tells the kernel where these are
    kernel_.put(mapping_, "folio", "mapping", std::uint64_t{0});
    places_ = FilePlaces::resolve(guest_.memory().ram(), kernel_).value();
    const PageCache cache = PageCache::resolve(kernel_).value();
    place_ = {.inode = inode_,
              .file = cache.identity(reader_, inode_).value(),
              .offset = offset,
              .behind = {}};
  }
  /// The guest reads the page into new memory.
  GuestPhys load(std::string_view code) {
    const GuestPhys at = guest_.allocate_phys(page_size, page_size);
    const GuestVirt page = vmemmap_ + at.pfn() * page_bytes;
    kernel_.put(page, "folio", "index", std::uint64_t{0});
    kernel_.put(page, "folio", "mapping", mapping_.raw());
    kernel_.put(mapping_, "address_space", "i_pages.xa_head", page.raw());
    write(at, code);
    return at;
  }
  void write(GuestPhys at, std::string_view code) {
    for (std::size_t i = 0; i < code.size(); ++i)
      guest_.put(guest_.direct(at) + offset + i, static_cast<std::uint8_t>(code[i]));
  }
  FilePlaces::Look look() {
    reader_.flush();
    return places_->look(reader_, place_, trap);
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_;
  AddressSpace space_;
  Reader reader_;
  GuestVirt vmemmap_, inode_, mapping_;
  std::optional<FilePlaces> places_;
  FilePlace place_;
};

const std::string body{"\x53\x48\x89\xfb\x48\x8d\x3c\x7f"};

TEST_F(Place, IsFollowedThroughThePageCache) {
  EXPECT_EQ(look().state, State::missing);
  const GuestPhys first = load(std::string(endbr64) + body);
  EXPECT_EQ(look().state, State::original);
  EXPECT_EQ(look().at, first + offset);
  write(first, trap);
  EXPECT_EQ(look().state, State::armed);
  kernel_.put(mapping_, "address_space", "i_pages.xa_head", std::uint64_t{0});  // dropped
  EXPECT_EQ(look().state, State::missing);
  const GuestPhys second = load(std::string(endbr64) + body);
  EXPECT_EQ(look().state, State::original);
  EXPECT_EQ(look().at, second + offset);
  load(trap + body);  // moved, with what we wrote
  EXPECT_EQ(look().state, State::armed);
}

TEST_F(Place, OtherInstructionsAreOther) {
  load(std::string("\x41\x57\x41\x56") + body);
  EXPECT_EQ(look().state, State::other);
}

TEST_F(Place, AFileThatChangedIsNotTheSame) {
  load(std::string(endbr64) + body);
  EXPECT_EQ(look().state, State::original);
  load(std::string(endbr64) + "another function");
  EXPECT_EQ(look().state, State::replaced);
  load(std::string(endbr64) + body);
  EXPECT_EQ(look().state, State::original);
  kernel_.put(inode_, "inode", "i_generation",
              std::uint32_t{6});  // its number was given to another one
  EXPECT_EQ(look().state, State::replaced);
}

TEST_F(Place, TheNextFunctionMayBeArmedToo) {
  const std::string next = std::string("\xc3") + std::string(endbr64) + "\x31\xc0\xc3";
  const GuestPhys at = load(std::string(endbr64) + next);
  EXPECT_EQ(look().state, State::original);
  write(at, std::string(endbr64) + without_traps(next, trap));
  write(at, std::string(endbr64) + "\xc3" + trap);
  EXPECT_EQ(look().state, State::original);
}

}  // namespace
}  // namespace vmsight::probe_file_place_test
