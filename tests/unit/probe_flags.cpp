#include "probe/flags.h"

#include <gtest/gtest.h>

namespace vmsight::probe_flags_test {
namespace {

/// As the decoder does it, with the arguments of a system call.
std::string named(std::string_view call, std::size_t index, std::vector<std::uint64_t> arguments) {
  for (const FlagRule& rule : flag_rules(call)) {
    if (rule.argument != index) continue;
    if (rule.holds != nullptr && !rule.holds(arguments[rule.other])) continue;
    return rule.kind == FlagKind::unused ? "unused" : flag_names(rule.kind, arguments[index], 32);
  }
  return "no rule";
}

TEST(Flags, AreAValueAndBits) {
  EXPECT_EQ(flag_names(FlagKind::open_flags, 0), "O_RDONLY");
  EXPECT_EQ(flag_names(FlagKind::open_flags, 0100000), "O_RDONLY|O_LARGEFILE");
  EXPECT_EQ(flag_names(FlagKind::open_flags, 01 | 0100 | 01000 | 02000000),
            "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC");
  EXPECT_EQ(flag_names(FlagKind::open_flags, 020200000 | 2),
            "O_RDWR|O_TMPFILE");  // it has O_DIRECTORY in it
  EXPECT_EQ(flag_names(FlagKind::open_flags, 04010000), "O_RDONLY|O_SYNC");  // and this O_DSYNC
  EXPECT_EQ(flag_names(FlagKind::map_flags, 0x22), "MAP_PRIVATE|MAP_ANONYMOUS");
  EXPECT_EQ(flag_names(FlagKind::map_flags, 0x20),
            "MAP_ANONYMOUS");  // neither shared nor private: no name
  EXPECT_EQ(flag_names(FlagKind::socket_type, 0x80801), "SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK");
  EXPECT_EQ(flag_names(FlagKind::clone_flags, 0x1200011),
            "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD");
  EXPECT_EQ(flag_names(FlagKind::clone_flags, 0x80000000), "CLONE_IO");
  EXPECT_EQ(flag_names(FlagKind::futex_operation, 0x189),
            "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME");
}

TEST(Flags, NoBitHasANameToo) {
  EXPECT_EQ(flag_names(FlagKind::protection, 0), "PROT_NONE");
  EXPECT_EQ(flag_names(FlagKind::protection, 3), "PROT_READ|PROT_WRITE");
  EXPECT_EQ(flag_names(FlagKind::access_mode, 0), "F_OK");
  EXPECT_EQ(flag_names(FlagKind::pipe_flags, 0), "0");
}

TEST(Flags, UnknownBitsAreHexadecimal) {
  EXPECT_EQ(flag_names(FlagKind::protection, 0x4000001), "PROT_READ|0x4000000");
  EXPECT_EQ(flag_names(FlagKind::open_flags, 1ULL << 40), "O_RDONLY|0x10000000000");
  EXPECT_EQ(flag_names(FlagKind::open_flags, ~0ULL << 31, 32), "O_RDONLY|0x80000000");
  EXPECT_EQ(flag_names(FlagKind::message_flags, 0xffffffff80004000, 32), "MSG_NOSIGNAL|0x80000000");
  EXPECT_EQ(flag_names(FlagKind::futex_operation, 0x7f), "0x7f");
  EXPECT_EQ(flag_names(FlagKind::socket_type, 0xf), "0xf");
}

TEST(Flags, ConstantsWithoutNameStayNumbers) {
  EXPECT_EQ(flag_names(FlagKind::directory, static_cast<std::uint64_t>(-100), 32), "AT_FDCWD");
  EXPECT_EQ(flag_names(FlagKind::directory, 3), "");
  EXPECT_EQ(flag_names(FlagKind::signal, 15), "SIGTERM");
  EXPECT_EQ(flag_names(FlagKind::signal, 0), "");
  EXPECT_EQ(flag_names(FlagKind::signal, 34), "SIGRT_2");
  EXPECT_EQ(flag_names(FlagKind::signal, 64), "SIGRT_32");
  EXPECT_EQ(flag_names(FlagKind::signal, 65), "");
  EXPECT_EQ(flag_names(FlagKind::whence, 1), "SEEK_CUR");
  EXPECT_EQ(flag_names(FlagKind::ioctl_request, 0x5401), "TCGETS");
  EXPECT_EQ(flag_names(FlagKind::ioctl_request, 0x8004700b), "0x8004700b");
  EXPECT_EQ(flag_names(FlagKind::none, 5), "");
  EXPECT_EQ(flag_names(FlagKind::fcntl_command, 0x7b), "0x7b /* F_??? */");
  EXPECT_EQ(flag_names(FlagKind::family, 0xffffffffffffffff, 32), "0xffffffff /* AF_??? */");
  EXPECT_EQ(flag_names(FlagKind::octal, 0644), "0644");
}

TEST(Flags, ArgumentsDecideAboutOthers) {
  EXPECT_EQ(named("openat", 3, {0, 0, 0, 0xffffffff}), "unused");
  EXPECT_EQ(named("openat", 3, {0, 0, 0101, 0600}), "0600");
  EXPECT_EQ(named("openat", 3, {0, 0, 020200002, 0600}), "0600");  // O_TMPFILE
  EXPECT_EQ(named("open", 2, {0, 0200000, 7}), "unused");          // O_DIRECTORY is not O_TMPFILE
  EXPECT_EQ(named("fcntl", 2, {3, 2, 1}), "FD_CLOEXEC");
  EXPECT_EQ(named("fcntl", 2, {3, 4, 04002}), "O_RDWR|O_NONBLOCK");
  EXPECT_EQ(named("fcntl", 2, {3, 1, 77}), "unused");
  EXPECT_EQ(named("fcntl", 2, {3, 0, 10}), "");  // F_DUPFD: a number
  EXPECT_EQ(named("fcntl", 2, {3, 6, 0x7ffe1000}), "0x7ffe1000");
  EXPECT_EQ(named("socket", 2, {2, 1, 6}), "IPPROTO_TCP");
  EXPECT_EQ(named("socket", 2, {16, 3, 0}), "NETLINK_ROUTE");
  EXPECT_EQ(named("socket", 2, {1, 1, 0}), "no rule");
  EXPECT_EQ(named("futex", 3, {0, 129, 1, 5, 5, 5}), "unused");
  EXPECT_EQ(named("futex", 3, {0, 128, 1, 5, 5, 5}), "no rule");
  EXPECT_EQ(named("setsockopt", 2, {3, 6, 1}), "TCP_NODELAY");
  EXPECT_EQ(named("mremap", 4, {0, 0, 0, 1, 5}), "unused");
  EXPECT_TRUE(flag_rules("no_such_call").empty());
  EXPECT_TRUE(flag_rules("").empty());
}

TEST(Flags, FunctionsAndStructures) {
  EXPECT_EQ(function_flags("do_sys_openat2", "dfd", "int"), FlagKind::directory);
  EXPECT_EQ(function_flags("verify", "sig", "const u8 *"), FlagKind::none);
  EXPECT_EQ(function_flags("anything", "mode", "fmode_t"), FlagKind::file_mode);
  EXPECT_EQ(function_flags("other", "cap", "int"), FlagKind::none);
  EXPECT_EQ(member_flags("open_how", "flags"), FlagKind::open_flags);
  EXPECT_EQ(member_flags("page", "flags"), FlagKind::none);
}

}  // namespace
}  // namespace vmsight::probe_flags_test
