#include <gtest/gtest.h>

#include <sys/socket.h>

#include "probe/gdb_loop.h"
#include "support/synthetic_guest.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::probe_gdb_test {
namespace {

using namespace std::chrono_literals;
using namespace test;

TEST(GdbRegisters, AreWhereQemuHasThem) {
  std::string answer;
  for (unsigned i = 0; i < 17; ++i) answer += fmt::format("{:02x}00000000000000", i + 1);
  answer +=
      "46020000"
      "33000000" +
      std::string(5 * 8, '0');  // eflags cs ss ds es fs gs
  answer += std::string(16, '0') +
            "8800000000000000"
            "9900000000000000";  // fs_base gs_base k_gs_base
  answer += std::string(32, '0') + "0010abcd00000000" + std::string(400, '0');  // cr0 cr2 cr3 ...
  const auto all = parse_gdb_registers(answer);
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(all->registers.general[reg::rdi], 6u);
  EXPECT_EQ(all->registers.general[reg::rbp], 7u);
  EXPECT_EQ(all->registers.general[reg::rsp], 8u);
  EXPECT_EQ(all->registers.general[reg::r15], 16u);
  EXPECT_EQ(all->registers.rip, 17u);
  EXPECT_EQ(all->registers.rflags, 0x246u);
  EXPECT_EQ(all->cpl, 3u);
  EXPECT_EQ(all->registers.gs_base, 0x88u);
  EXPECT_EQ(all->kernel_gs_base, 0x99u);
  EXPECT_EQ(all->registers.cr3, 0xcdab1000u);
  EXPECT_EQ(set_rip(0x1122334455667788), "P10=8877665544332211");
  EXPECT_EQ(return_at_once(~0ULL, 0xff8, 2),
            (std::vector<std::string>{"P0=ffffffffffffffff", "P7=0010000000000000",
                                      "P10=0200000000000000"}));
  for (const char* bad : {"", "E14", "xx"}) EXPECT_FALSE(parse_gdb_registers(bad)) << bad;
  EXPECT_FALSE(parse_gdb_registers(std::string(600, 'x')));
}

TEST(GdbTraps, KnowWhatDoesNothing) {
  const auto length = [](std::initializer_list<int> code, bool endbr = true) {
    std::vector<std::byte> bytes;
    for (const int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    return x86_64.nop_length(bytes, endbr);
  };
  EXPECT_EQ(length({0x0f, 0x1f, 0x44, 0, 0}), 5u);
  EXPECT_EQ(length({0x66, 0x66, 0x66, 0x66, 0x90}), 5u);
  EXPECT_EQ(length({0xf3, 0x0f, 0x1e, 0xfa}), 4u);
  EXPECT_EQ(length({0xf3, 0x0f, 0x1e, 0xfa}, false), 0u);
  EXPECT_EQ(length({0x90}), 1u);
  EXPECT_EQ(length({0xe8, 0x1f, 0x44, 0, 0}), 0u);
  EXPECT_EQ(length({0x55, 0x48, 0x89, 0xe5}), 0u);
  EXPECT_EQ(length({0x0f, 0x1f}), 0u);
  EXPECT_EQ(length({}), 0u);
}

/// A guest with one CPU that runs one task, and a stub that says what it is told to say.
class Loop : public ::testing::Test {
 protected:
  Loop() : kernel_(guest_), space_(guest_.space()), reader_(guest_.memory(), space_) {
    kernel_.lack("pcpu_hot");
    kernel_.lack("pcpu_hot.current_task");
    base_ = guest_.allocate(8192, 4096);
    per_cpu_ = base_.raw() - kernel_.symbol("current_task")->raw();
    kernel_.set_cpus({per_cpu_});
    task_ = guest_.allocate(4096);
    guest_.put_pointer(base_, task_);
    kernel_.put(task_, "task_struct", "pid", std::uint32_t{42});
    kernel_.put(task_, "task_struct", "tgid", std::uint32_t{40});
    kernel_.set("task_struct", "comm", {.offset = 2000, .size = 16});
    guest_.write(task_ + 2000, std::as_bytes(std::span("worker", 7)));
    kernel_.put(task_, "task_struct", "mm", std::uint64_t{0x1234});
    stack_ = guest_.allocate(4096);
    code_ = guest_.image(0x100);
    caller_ = guest_.image(0x900);
    const unsigned char nop[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    guest_.write(code_, std::as_bytes(std::span(nop)));
    const unsigned char test_eax[] = {0x85, 0xc0};
    guest_.write(caller_, std::as_bytes(std::span(test_eax)));
    guest_.put_pointer(stack_ + 64, caller_);
    current_ = CurrentTask::resolve(kernel_).value();
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    stub_ = UniqueFd(ends[1]);
    say({"PacketSize=1000;multiprocess+", "OK", "OK"});
    client_ = GdbClient::negotiate(UniqueFd(ends[0]), 100ms).value();
    heard();
  }

  void say(std::initializer_list<std::string> packets) {
    std::string text;
    for (const std::string& packet : packets) text += gdb_packet(packet);
    ASSERT_EQ(::send(stub_.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  /// What the client has sent since the last question.
  std::vector<std::string> heard() {
    char buffer[65536];
    GdbPackets packets;
    for (ssize_t got; (got = ::recv(stub_.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0;) {
      packets.add({buffer, static_cast<std::size_t>(got)});
    }
    std::vector<std::string> all;
    while (true) {
      auto packet = packets.next();
      if (!packet || !*packet) return all;
      all.push_back(**packet);
    }
  }
  /// The answer to "g".
  std::string registers(std::uint64_t rip, std::uint64_t rsp, std::uint64_t rax = 0,
                        unsigned cs = 0x10) const {
    std::array<std::byte, 240> bytes{};
    const auto put = [&](std::size_t at, std::uint64_t value, std::size_t size = 8) {
      std::memcpy(bytes.data() + at, &value, size);
    };
    put(0, rax);
    put(5 * 8, 0xabc);  // rdi
    put(7 * 8, rsp);
    put(128, rip);
    put(140, cs, 4);
    put(172, per_cpu_);
    put(204, guest_.root().raw() | 0xfff);  // with a PCID
    std::string text;
    for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
    return text;
  }
  GdbStop stop() const { return {.signal = 5, .vcpu = 1}; }
  /// The guest stops; then the stub says these.
  Result<GdbLoop::After> hit(GdbLoop& loop, std::initializer_list<std::string> packets) {
    if (client_->is_running()) {
      say({"T05thread:p01.02;"});
      EXPECT_TRUE(client_->wait_stop(100ms).value());
    }
    say(packets);
    return loop.handle(*client_, stop(), sink_, told_);
  }
  GdbLoop make(GdbLoop::Options options = {}) { return GdbLoop(reader_, current_, options); }
  static constexpr const char* xml = "l<target/>";

  ProbeOrder order(ProbeId id, bool at_return = false) const {
    ProbeOrder made{.id = id, .site = {.at_return = at_return, .address = code_}};
    made.fetches.push_back({.base = reg::rdi});
    if (at_return) made.fetches_return.push_back({.base = reg::rax});
    return made;
  }
  std::string insert(GuestVirt at) const { return fmt::format("Z0,{:x},1", at.raw()); }
  std::string removal(GuestVirt at) const { return fmt::format("z0,{:x},1", at.raw()); }

  SyntheticGuest guest_;
  MadeUpKernel kernel_;
  AddressSpace space_;
  Reader reader_;
  GuestVirt base_, task_, stack_, code_, caller_;
  std::uint64_t per_cpu_ = 0;
  CurrentTask current_;
  UniqueFd stub_;
  std::optional<GdbClient> client_;
  std::vector<Hit> hits_;
  std::size_t told_ = 0;
  ProbeEngine::Sink sink_ = [this](Hit& hit) { hits_.push_back(hit); };
};

TEST_F(Loop, TellsHitsAndSkipsWhatDoesNothing) {
  GdbLoop loop = make();
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{order(7)}));
  EXPECT_EQ(heard().back(), insert(code_));
  EXPECT_EQ(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK"}).value(),
            GdbLoop::After::runs);
  EXPECT_EQ(heard(),
            (std::vector<std::string>{"Hgp1.2", "g", set_rip(code_.raw() + 5), "vCont;c"}));
  ASSERT_EQ(hits_.size(), 1u);
  EXPECT_EQ(hits_[0].task.pid, 42);
  EXPECT_EQ(hits_[0].task.tgid, 40);
  EXPECT_EQ(hits_[0].task.name(), "worker");
  EXPECT_EQ(hits_[0].vcpu, 1u);
  EXPECT_EQ(hits_[0].fetched[0].value, 0xabcu);
  EXPECT_EQ(loop.counts(7)->told, 1u);
}

TEST_F(Loop, ACallThatIsRefusedReturnsAtOnce) {
  GdbLoop loop = make();
  say({xml, "OK"});
  ProbeOrder standing = order(7);
  standing.standing = true;
  ASSERT_TRUE(loop.arm(*client_, std::array{standing}));
  heard();
  sink_ = [this](Hit& hit) {
    EXPECT_TRUE(hit.can_be_refused);
    hit.refusal = -1;
    hits_.push_back(hit);
  };
  const std::uint64_t stack = stack_.raw() + 64;
  EXPECT_EQ(hit(loop, {"OK", registers(code_.raw(), stack), "OK", "OK", "OK"}).value(),
            GdbLoop::After::runs);
  std::vector<std::string> expected{"Hgp1.2", "g"};
  for (const auto& set : return_at_once(~0ULL, stack, caller_.raw())) expected.push_back(set);
  expected.emplace_back("vCont;c");
  EXPECT_EQ(heard(), expected);
}

TEST_F(Loop, ACallIsRefusedOnlyWhileTheGuestStandsAtItsEntry) {
  GdbLoop loop = make();
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{order(7)}));
  heard();
  sink_ = [this](Hit& hit) {
    EXPECT_FALSE(hit.can_be_refused);
    hit.refusal = -1;
    hits_.push_back(hit);
  };
  ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK"}));
  EXPECT_EQ(heard(),
            (std::vector<std::string>{"Hgp1.2", "g", set_rip(code_.raw() + 5), "vCont;c"}));
  EXPECT_EQ(hits_.size(), 1u);
}

TEST_F(Loop, StepsOverWhatTheGuestHasPatched) {
  GdbLoop loop = make();
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{order(7)}));
  heard();
  guest_.put(code_, std::uint8_t{0xe8});  // the guest's own tracer
  ASSERT_TRUE(hit(
      loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK", "T05thread:p01.02;", "OK"}));
  EXPECT_EQ(heard(), (std::vector<std::string>{"Hgp1.2", "g", removal(code_), "vCont;s:p1.2",
                                               insert(code_), "vCont;c"}));
}

TEST_F(Loop, SeesCallsReturn) {
  GdbLoop loop = make();
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{order(7, true)}));
  heard();
  ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK", "OK"}));
  EXPECT_EQ(heard(), (std::vector<std::string>{"Hgp1.2", "g", insert(caller_),
                                               set_rip(code_.raw() + 5), "vCont;c"}));
  EXPECT_TRUE(hits_.empty());
  // Somebody else comes by there: stepped over, as the call is still under way.
  ASSERT_TRUE(hit(loop, {"OK", registers(caller_.raw(), stack_.raw() + 200, 9), "OK",
                         "T05thread:p01.02;", "OK"}));
  EXPECT_TRUE(hits_.empty());
  EXPECT_EQ(loop.foreign(), 0u);
  heard();
  ASSERT_TRUE(hit(loop, {"OK", registers(caller_.raw(), stack_.raw() + 72, 55), "OK"}));
  EXPECT_EQ(heard(), (std::vector<std::string>{"Hgp1.2", "g", removal(caller_), "vCont;c"}));
  ASSERT_EQ(hits_.size(), 1u);
  EXPECT_TRUE(hits_[0].at_return);
  EXPECT_EQ(hits_[0].fetched_return[0].value, 55u);
  EXPECT_EQ(hits_[0].fetched[0].value, 0xabcu);
  EXPECT_EQ(loop.counts(7)->missed_returns, 0u);
}

TEST_F(Loop, RecursionIsToldApartByTheStack) {
  GdbLoop loop = make();
  guest_.put_pointer(stack_ + 128, caller_);
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{order(7, true)}));
  ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 128), "OK", "OK"}));
  ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK"}));
  ASSERT_TRUE(hit(loop, {"OK", registers(caller_.raw(), stack_.raw() + 72, 1), "OK",
                         "T05thread:p01.02;", "OK"}));
  ASSERT_TRUE(hit(loop, {"OK", registers(caller_.raw(), stack_.raw() + 136, 2), "OK"}));
  ASSERT_EQ(hits_.size(), 2u);
  EXPECT_EQ(hits_[0].fetched_return[0].value, 1u);
  EXPECT_EQ(hits_[1].fetched_return[0].value, 2u);
}

TEST_F(Loop, ACallThatNeverCameBackIsMissed) {
  GdbLoop loop = make();
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{order(7, true)}));
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK", "OK"}));
  }
  EXPECT_EQ(loop.counts(7)->missed_returns,
            2u);  // one's place is the other's, which may return yet
  say({"T05thread:p01.02;", "OK", "OK"});
  EXPECT_TRUE(client_->wait_stop(100ms).value());
  ASSERT_TRUE(loop.disarm(*client_, std::array{ProbeId{7}}));
  EXPECT_EQ(loop.counts(7)->missed_returns, 2u);
  EXPECT_TRUE(loop.is_idle());
}

TEST_F(Loop, ACallerIsWhoItWasAtTheEntry) {
  GdbLoop loop = make();
  ProbeOrder named = order(7, true);
  FilterTerm name{.field = FilterTerm::Field::comm},
      result{.field = FilterTerm::Field::fetch_return};
  name.text = "worker";
  named.filter = {.terms = {name, result},
                  .steps = {{}, {.term = 1}, {.kind = FilterStep::Kind::both}}};
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{named}));
  ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK", "OK"}));
  guest_.write(task_ + 2000, std::as_bytes(std::span("renamed", 8)));
  ASSERT_TRUE(hit(loop, {"OK", registers(caller_.raw(), stack_.raw() + 72, 0), "OK"}));
  ASSERT_EQ(hits_.size(), 1u);
  EXPECT_EQ(hits_[0].task.name(), "worker");
}

TEST_F(Loop, FiltersRatesAndCounts) {
  GdbLoop loop = make();
  ProbeOrder rejected = order(1), limited = order(2), silent = order(3);
  rejected.filter = {.terms = {{.number = 7}}, .steps = {{}}};
  limited.rate_limit = 1;
  silent.counts_only = true;
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{rejected, limited, silent}));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(hit(loop, {"OK", registers(code_.raw(), stack_.raw() + 64), "OK"}));
  }
  EXPECT_EQ(loop.counts(1)->filtered, 3u);
  EXPECT_GE(loop.counts(2)->rate_limited, 1u);  // the three may be of two seconds
  EXPECT_EQ(loop.counts(2)->rate_limited + loop.counts(2)->told, 3u);
  EXPECT_EQ(loop.counts(3)->hits, 3u);
  EXPECT_EQ(loop.counts(3)->told, 0u);
  EXPECT_EQ(hits_.size(), loop.counts(2)->told);
  EXPECT_FALSE(loop.counts(4));
}

TEST_F(Loop, UserProcessesAreToldApart) {
  GdbLoop loop = make();
  ProbeOrder own = order(1), others = order(2);
  for (ProbeOrder* one : {&own, &others}) one->site.user = true;
  own.site.places = {
      {.tgid = 40, .mm = GuestVirt(0x1234), .root = guest_.root(), .address = GuestVirt(0x401000)}};
  others.site.places = {
      {.tgid = 50, .mm = GuestVirt(0x5678), .root = guest_.root(), .address = GuestVirt(0x401000)}};
  say({xml, "OK"});
  ASSERT_TRUE(loop.arm(*client_, std::array{own, others}));
  ASSERT_TRUE(
      hit(loop, {"OK", registers(0x401000, 0x7000, 0, 0x33), "OK", "T05thread:p01.02;", "OK"}));
  EXPECT_EQ(loop.counts(1)->hits, 1u);
  EXPECT_EQ(loop.counts(2)->hits, 0u);
  EXPECT_EQ(loop.counts(2)->foreign, 1u);
}

TEST_F(Loop, ForeignTrapsRunOn) {
  GdbLoop loop = make();
  EXPECT_EQ(hit(loop, {"OK", registers(0x1234, 0)}).value(), GdbLoop::After::runs);
  EXPECT_EQ(loop.foreign(), 1u);
  EXPECT_EQ(heard().back(), "vCont;c");
}

TEST_F(Loop, WhomSomebodyElseStopsStands) {
  GdbLoop loop = make();
  EXPECT_EQ(loop.handle(*client_, {.signal = 2, .vcpu = 0}, sink_, told_).value(),
            GdbLoop::After::stands);
  EXPECT_TRUE(heard().empty());
  EXPECT_EQ(loop.handle(*client_, {.signal = 0, .ended = true}, sink_, told_).error().code,
            ErrorCode::vm_gone);
}

TEST_F(Loop, RefusalsArmNothing) {
  GdbLoop loop = make();
  say({xml, "E22", "OK"});
  EXPECT_EQ(loop.arm(*client_, std::array{order(7)}).error().code, ErrorCode::unsupported);
  EXPECT_TRUE(loop.is_idle());
  GdbLoop few = make({.kind = GdbTraps::Kind::hardware, .max_traps = 1});
  ProbeOrder second = order(8);
  second.site.address = caller_;
  say({xml});
  heard();
  const Error too_many = few.arm(*client_, std::array{order(7), second}).error();
  EXPECT_EQ(too_many.code, ErrorCode::unsupported);
  EXPECT_EQ(heard().size(), 1u);  // nothing was inserted
  EXPECT_TRUE(few.is_idle());
}

TEST_F(Loop, AStubThatSaysNonsenseIsAnError) {
  for (const char* nonsense : {"", "E14", "0123", "zzzz"}) {
    GdbLoop loop = make();
    say({"OK", nonsense});
    EXPECT_FALSE(loop.handle(*client_, stop(), sink_, told_)) << nonsense;
  }
}

TEST(GdbStopText, IsUnderstood) {
  EXPECT_EQ(parse_stop_reply("T05thread:p01.02;")->vcpu, 1u);
  EXPECT_EQ(parse_stop_reply("T05thread:p01.0a;")->vcpu, 9u);
  EXPECT_EQ(parse_stop_reply("T05thread:03;")->vcpu, 2u);
  EXPECT_EQ(parse_stop_reply("T02")->signal, 2u);
  EXPECT_TRUE(parse_stop_reply("W00")->ended);
  for (const char* text :
       {"T05thread:p01.00;", "T05thread:p01.;", "T05thread:p;", "T05thread:", "T05thread:zz;"}) {
    EXPECT_EQ(parse_stop_reply(text)->vcpu, std::nullopt) << text;
  }
  for (const char* text : {"", "OK", "Tzz", "E22"}) EXPECT_FALSE(parse_stop_reply(text)) << text;
}

}  // namespace
}  // namespace vmsight::probe_gdb_test
