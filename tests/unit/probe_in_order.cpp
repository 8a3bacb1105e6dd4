#include "probe/kvm/in_order.h"

#include <gtest/gtest.h>

namespace vmsight::probe_in_order_test {
namespace {

using kvm::InOrder;

constexpr std::uint64_t window = InOrder::window_ns;

class InOrderTest : public ::testing::Test {
 protected:
  void add(std::initializer_list<std::uint64_t> times) {
    for (const std::uint64_t time : times) order_.add({{.probe = next_++, .time_ns = time}});
  }
  InOrder order_;
  ProbeId next_ = 0;
  std::vector<std::uint64_t> told_;
  std::vector<ProbeId> probes_;
  ProbeEngine::Sink sink_ = [this](Hit& hit) {
    told_.push_back(hit.time_ns);
    probes_.push_back(hit.probe);
  };
};

TEST_F(InOrderTest, WhatComesWithinTheWindowIsPutRight) {
  add({9, 7, 8, 12, 11});
  EXPECT_EQ(order_.tell(window + 9, sink_), 3u);
  EXPECT_EQ(told_, (std::vector<std::uint64_t>{7, 8, 9}));
  add({10});
  EXPECT_EQ(order_.tell_all(sink_), 3u);
  EXPECT_EQ(told_, (std::vector<std::uint64_t>{7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(order_.late(), 0u);
  EXPECT_TRUE(order_.is_empty());
}

TEST_F(InOrderTest, OfOneTimeTheFirstThatCameIsFirst) {
  add({5, 5, 4, 5});
  order_.tell_all(sink_);
  EXPECT_EQ(probes_, (std::vector<ProbeId>{2, 0, 1, 3}));
}

TEST_F(InOrderTest, WhatComesLaterIsToldAndCounted) {
  add({20});
  order_.tell(window + 20, sink_);
  add({19, 21, 18});
  order_.tell_all(sink_);
  EXPECT_EQ(told_, (std::vector<std::uint64_t>{20, 18, 19, 21}));
  EXPECT_EQ(order_.late(), 2u);
}

TEST_F(InOrderTest, IsBounded) {
  for (std::uint64_t i = 0; i < InOrder::max_waiting + 10; ++i) add({i});
  EXPECT_EQ(order_.tell(0, sink_), 10u);
}

}  // namespace
}  // namespace vmsight::probe_in_order_test
