#include <gtest/gtest.h>

#include "probe/ftrace_site.h"
#include "support/synthetic_guest.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::probe_ftrace_test {
namespace {

using namespace test;
using State = FtraceSite::State;

class Ftrace : public ::testing::Test {
 protected:
  Ftrace() : kernel_(guest_), space_(guest_.space()), reader_(guest_.memory(), space_) {
    function_ = guest_.allocate(64);
  }
  FtraceSite find(std::initializer_list<int> code) {
    std::vector<std::byte> bytes;
    for (const int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    bytes.resize(16);
    guest_.write(function_, bytes);
    reader_.flush();
    return FtraceSites::resolve(kernel_, reader_).find(reader_, function_);
  }
  /// The kernel has a record of these places.
  void record(std::vector<std::uint64_t> places) {
    kernel_.set_size("dyn_ftrace", 16);
    const GuestVirt page = guest_.allocate(64), records = guest_.allocate(16 * places.size() + 16);
    for (std::size_t i = 0; i < places.size(); ++i) {
      guest_.put(records + i * 16 + kernel_.offset("dyn_ftrace", "ip"), places[i]);
    }
    guest_.put_pointer(kernel_.symbol("ftrace_pages_start").value(), page);
    kernel_.put(page, "ftrace_page", "records", records.raw());
    kernel_.put(page, "ftrace_page", "index", static_cast<std::uint32_t>(places.size()));
  }

  SyntheticGuest guest_;
  MadeUpKernel kernel_;
  AddressSpace space_;
  Reader reader_;
  GuestVirt function_;
};

TEST_F(Ftrace, KnowsTheBytesOfAllKernels) {
  kernel_.lack("ftrace_pages_start");
  EXPECT_EQ(find({0x0f, 0x1f, 0x44, 0, 0}).address, function_);
  EXPECT_EQ(find({0x66, 0x66, 0x66, 0x66, 0x90}).state, State::idle);
  for (const FtraceSite& site : {find({0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0}),
                                 find({0x66, 0x0f, 0x1f, 0x00, 0x0f, 0x1f, 0x44, 0, 0}),
                                 find({0x0f, 0x1f, 0x40, 0xd6, 0x0f, 0x1f, 0x44, 0, 0})}) {
    EXPECT_EQ(site.state, State::idle);
    EXPECT_EQ(site.address, function_ + 4);
  }
  EXPECT_EQ(find({0x3e, 0x3e, 0x3e, 0x0f, 0x08}).state, State::probed);
  EXPECT_EQ(find({0x55, 0x48, 0x89, 0xe5, 0x90}).state, State::none);
  EXPECT_EQ(find({0xe8, 1, 2, 3, 4}).state, State::none);  // any call, without records
}

TEST_F(Ftrace, TellsUnreadableCodeFromOtherCode) {
  const FtraceSite other = find({0x55, 0x48, 0x89, 0xe5, 0x90});
  EXPECT_EQ(other.state, State::none);
  EXPECT_EQ(other.bytes[0], std::byte{0x55});
  function_ = GuestVirt(0xffffffffdead0000);
  EXPECT_EQ(FtraceSites::resolve(kernel_, reader_).find(reader_, function_).state, State::unread);
}

TEST_F(Ftrace, BelievesTheKernelsRecords) {
  record({function_.raw() - 64, function_.raw(), function_.raw() + 64});
  EXPECT_EQ(find({0x0f, 0x1f, 0x44, 0, 0}).state, State::idle);
  EXPECT_EQ(find({0xe8, 1, 2, 3, 4}).state, State::traced);
  // A NOP after a prefix, of which there is no record.
  EXPECT_EQ(find({0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0}).state, State::unrecorded);
  record({function_.raw() - 64, function_.raw() + 64});
  EXPECT_EQ(find({0x0f, 0x1f, 0x44, 0, 0}).state, State::unrecorded);
  EXPECT_EQ(find({0xe8, 1, 2, 3, 4}).state, State::none);
}

TEST_F(Ftrace, ForgedRecordsEnd) {
  record({function_.raw()});
  const GuestVirt page = reader_.pointer(kernel_.symbol("ftrace_pages_start").value());
  kernel_.put(page, "ftrace_page", "next", page.raw());  // a circle
  EXPECT_EQ(find({0x0f, 0x1f, 0x44, 0, 0}).state, State::idle);
  kernel_.put(page, "ftrace_page", "next", std::uint64_t{0x1234});  // not mapped
  EXPECT_EQ(find({0x0f, 0x1f, 0x44, 0, 0}).state, State::idle);     // by its bytes
}

}  // namespace
}  // namespace vmsight::probe_ftrace_test
