#include <gtest/gtest.h>

#include "state/sockets.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::state_sockets_test {
namespace {

using test::MadeUpKernel;
using test::SyntheticGuest;

/// A guest with one network namespace and a TCP table of 16 buckets, and nothing else.
class Sockets : public ::testing::Test {
 protected:
  static constexpr std::uint64_t buckets = 16;

  SyntheticGuest guest_;
  MadeUpKernel kernel_{guest_};
  Reader reader_{guest_.memory(), kernel_.space()};
  StateOptions options_;
  State state_;
  Context context_{kernel_, reader_, options_, state_, {}, {}};
  GuestVirt net_ = guest_.allocate(4096), hashinfo_ = guest_.allocate(4096),
            ehash_ = guest_.allocate(buckets * 8, 4096);

  void SetUp() override {
    kernel_.start_at("sock", 512);  // structures that begin with sock_common, or with sock
    kernel_.start_at("inet_timewait_sock", 512);
    for (const char* type : {"tcp_sock", "unix_sock", "netlink_sock", "udp_sock"}) {
      kernel_.start_at(type, 2048);
    }
    kernel_.set_size("inet_ehash_bucket", 8);
    kernel_.set_size("inet_listen_hashbucket", 16);
    kernel_.set_size("udp_hslot", 16);
    kernel_.set("inet_ehash_bucket", "chain", {0, 8, 0, 0, 1});
    for (const char* name :
         {"inet_hashinfo.listening_hash", "net.ipv4.udp_table", "udplite_table", "sock.sk_ino",
          "ping_table", "raw_v4_hashinfo", "raw_v6_hashinfo", "unix_sock.inq_len"}) {
      kernel_.lack(name);
    }
    guest_.link_list(*kernel_.symbol("net_namespace_list"),
                     std::array{net_ + kernel_.offset("net", "list")});
    kernel_.put(net_, "net", "ns.inum", 4026531840U);
    kernel_.put(net_, "net", "ipv4.tcp_death_row.hashinfo", hashinfo_.raw());
    kernel_.put(hashinfo_, "inet_hashinfo", "ehash", ehash_.raw());
    kernel_.put(hashinfo_, "inet_hashinfo", "ehash_mask", buckets - 1);
    kernel_.put(hashinfo_, "inet_hashinfo", "lhash2", guest_.allocate(16, 16).raw());
    kernel_.put(net_, "net", "unx.table.buckets", guest_.allocate(4096, 4096).raw());
    guest_.put_pointer(*kernel_.symbol("nl_table"), guest_.allocate(64 * 1024));
    for (std::uint64_t i = 0; i < buckets; ++i) guest_.put(ehash_ + i * 8, i << 1 | 1);
  }

  GuestVirt node(GuestVirt sock) { return sock + kernel_.offset("sock_common", "skc_node"); }

  /// A sock of TCP over IPv4 in its bucket, in front of what is there.
  GuestVirt add(std::uint32_t hash, unsigned tcp_state) {
    const GuestVirt sock = guest_.allocate(4096);
    common(sock, "skc_family", std::uint16_t{2});
    common(sock, "skc_state", static_cast<std::uint8_t>(tcp_state));
    common(sock, "skc_refcnt", 1U);
    common(sock, "skc_hash", hash);
    common(sock, "skc_net", net_.raw());
    common(sock, "skc_rcv_saddr", Loopback{127, 0, 0, 1});
    common(sock, "skc_daddr", Loopback{10, 0, 0, 9});
    common(sock, "skc_num", std::uint16_t{8080});
    common(sock, "skc_dport", std::uint16_t{0x5000});  // 80
    kernel_.put(sock, "sock", "sk_type", 1U);
    kernel_.put(sock, "sock", "sk_protocol", 6U);
    const GuestVirt bucket = ehash_ + hash % buckets * 8;
    guest_.put(node(sock), first(bucket));
    guest_.put_pointer(bucket, node(sock));
    return sock;
  }
  using Loopback = std::array<std::uint8_t, 4>;
  template <typename T>
  void common(GuestVirt sock, std::string_view path, const T& value) {
    kernel_.put(sock, "sock_common", path, value);
  }
  std::uint64_t first(GuestVirt bucket) { return reader_.u64(bucket); }

  GuestVirt open(std::int32_t pid, std::int32_t fd, GuestVirt sock, std::uint64_t inode) {
    const GuestVirt socket = guest_.allocate(4096);
    kernel_.put(socket, "socket", "sk", sock.raw());
    context_.socket_files.push_back({pid, pid, fd, socket, inode});
    return socket;
  }
  const std::vector<Socket>& read() {
    auto sockets = SocketsReader::resolve(kernel_);
    EXPECT_TRUE(sockets) << sockets.error().message;
    sockets->read(context_);
    return state_.sockets;
  }
};

TEST_F(Sockets, ConnectionWithItsOwners) {
  const GuestVirt sock = add(0x123, 1);
  kernel_.put(sock, "tcp_sock", "rcv_nxt", 150U);
  kernel_.put(sock, "tcp_sock", "copied_seq", 100U);
  open(7, 3, sock, 99);
  open(8, 5, sock, 99);
  ASSERT_EQ(read().size(), 2U);
  const Socket& one = state_.sockets[0];
  EXPECT_EQ(one.family, "inet");
  EXPECT_EQ(one.protocol, "tcp");
  EXPECT_EQ(one.type, "stream");
  EXPECT_EQ(one.state, "ESTABLISHED");
  EXPECT_EQ(one.local, "127.0.0.1");
  EXPECT_EQ(one.local_port, 8080U);
  EXPECT_EQ(one.remote, "10.0.0.9");
  EXPECT_EQ(one.remote_port, 80U);
  EXPECT_EQ(one.recv_queue, 50U);
  EXPECT_EQ(one.inode, 99U);
  EXPECT_EQ(one.netns, 4026531840U);
  EXPECT_EQ(one.pid, 7);
  EXPECT_EQ(state_.sockets[1].pid, 8);
  EXPECT_EQ(state_.sockets[1].fd, 5);
  EXPECT_TRUE(state_.problems.empty());
}

TEST_F(Sockets, WaitingConnectionHasNoOwner) {
  const GuestVirt sock = add(5, 6);
  kernel_.put(sock, "inet_timewait_sock", "tw_substate", std::uint8_t{5});
  ASSERT_EQ(read().size(), 1U);
  EXPECT_EQ(state_.sockets[0].state, "FIN_WAIT2");
  EXPECT_FALSE(state_.sockets[0].pid);
}

TEST_F(Sockets, FileThatIsInNoTable) {
  const GuestVirt sock = add(5, 7);
  guest_.put(ehash_ + 5 * 8, 5ULL << 1 | 1);  // not in the table after all
  open(7, 3, sock, 99);
  ASSERT_EQ(read().size(), 1U);
  EXPECT_EQ(state_.sockets[0].state, "CLOSE");
  EXPECT_EQ(state_.sockets[0].fd, 3);
}

TEST_F(Sockets, ClosedFileIsAProblem) {
  open(7, 3, GuestVirt(), 99);
  EXPECT_TRUE(read().empty());
  EXPECT_EQ(state_.problems.size(), 1U);
}

TEST_F(Sockets, FreedSockIsNotShown) {
  common(add(5, 1), "skc_refcnt", 0U);
  EXPECT_TRUE(read().empty());
  EXPECT_EQ(state_.problems.size(), 1U);
}

TEST_F(Sockets, SockOfAnotherBucketMeansThatTheChainMoved) {
  add(5, 1);
  const GuestVirt stray = add(5, 1);
  common(stray, "skc_hash", 6U);
  EXPECT_EQ(read().size(), 1U);  // the one that belongs there
  EXPECT_EQ(state_.problems.size(), 1U);
}

TEST_F(Sockets, ChainThatEndsInAnotherBucket) {
  guest_.put(node(add(5, 1)), 9ULL << 1 | 1);
  read();
  EXPECT_EQ(state_.problems.size(), 1U);
}

TEST_F(Sockets, CircleEnds) {
  const GuestVirt sock = add(5, 1);
  guest_.put_pointer(node(sock), node(sock));
  EXPECT_LE(read().size(), 4U);
  EXPECT_EQ(state_.problems.size(), 1U);
}

TEST_F(Sockets, AbsurdTableIsRefused) {
  kernel_.put(hashinfo_, "inet_hashinfo", "ehash_mask", 0xffffffffU);
  EXPECT_TRUE(read().empty());
  EXPECT_EQ(state_.problems.size(), 1U);
}

TEST_F(Sockets, KernelWithoutATableIsUnsupported) {
  kernel_.lack("inet_hashinfo.ehash");
  const auto sockets = SocketsReader::resolve(kernel_);
  ASSERT_FALSE(sockets);
  EXPECT_EQ(sockets.error().code, ErrorCode::unsupported);
  EXPECT_NE(sockets.error().message.find("inet_hashinfo.ehash"), std::string::npos);
}

}  // namespace
}  // namespace vmsight::state_sockets_test
