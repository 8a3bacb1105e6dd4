// The kvm engine's parts that need no host: trampolines, orders as the program evaluates them, events.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cstring>

#include "probe/kvm/hypercall.h"
#include "probe/kvm/trampoline.h"
#include "probe/kvm/translate.h"

namespace vmsight::probe_kvm_test {
namespace {

constexpr GuestVirt site(0xffffffff81234564);

std::string bytes(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text += static_cast<char>(value);
  return text;
}

TEST(ProbeTrampoline, CallsBehindTheSiteAndTrapsTwice) {
  const GuestVirt at = site - 20;  // the function's padding: endbr64 stands between
  EXPECT_EQ(Trampoline::code(at, site), bytes({0x49, 0x89, 0xe3, 0x0f, 0x08, 0xe8, 0x0f, 0, 0, 0,
                                               0x49, 0x89, 0xe3, 0x0f, 0x08, 0xc3}));
  EXPECT_EQ(Trampoline::jump(site, at), bytes({0xe9, 0xe7, 0xff, 0xff, 0xff}));
}

TEST(ProbeTrampoline, IsKnownAgain) {
  const GuestVirt at(0xffffffff81e00040);
  std::string code = Trampoline::code(at, site);
  EXPECT_EQ(Trampoline::site_of(at, code), site);
  EXPECT_NE(Trampoline::site_of(at + 16, code), site);
  for (std::size_t i = 0; i < code.size(); ++i) {
    std::string other = code;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_NE(Trampoline::site_of(at, other), site) << i;
  }
  EXPECT_FALSE(Trampoline::site_of(at, code.substr(1)));
  EXPECT_FALSE(Trampoline::site_of(at, std::string(16, '\xcc')));
}

ProbeOrder order_with(FilterTerm term) {
  ProbeOrder order{.id = 7, .site = {.function = "f"}};
  order.filter.terms = {std::move(term)};
  order.filter.steps = {{FilterStep::Kind::term, 0}};
  return order;
}

TEST(ProbeKvmOrder, RegistersAreInKvmsOrder) {
  ProbeOrder order{.id = 7,
                   .site = {
                       .function = "f",
                   }};
  for (const unsigned base : {reg::rdi, reg::rsi, reg::rbx, reg::rsp, reg::r15}) {
    order.fetches.push_back({.base = static_cast<std::uint8_t>(base)});
  }
  const auto probe = kvm::describe_probe(order);
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->id, 7u);
  const int expected[] = {7, 6, 3, 4, 15};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(probe->fetch[i].base, expected[i]);
}

TEST(ProbeKvmOrder, AFilterOfTheTaskIsEvaluatedFirst) {
  using Field = FilterTerm::Field;
  for (const Field field : {Field::pid, Field::tgid, Field::comm, Field::cpu}) {
    FilterTerm term{.field = field};
    if (field == Field::comm) term.text = "init";
    EXPECT_EQ(kvm::describe_probe(order_with(term))->flags & kvm::probe_filter_early,
              kvm::probe_filter_early);
  }
  ProbeOrder order = order_with({.field = Field::pid});
  order.fetches.push_back({});
  order.filter.terms.push_back({.field = Field::fetch});
  order.filter.steps.push_back({FilterStep::Kind::term, 1});
  order.filter.steps.push_back({FilterStep::Kind::both});
  EXPECT_EQ(kvm::describe_probe(order)->flags & kvm::probe_filter_early,
            0u);  // an argument has to be read before
  EXPECT_EQ(
      kvm::describe_probe(order_with({.field = Field::duration}))->flags & kvm::probe_filter_early,
      0u);
  EXPECT_FALSE(kvm::filters_early({.id = 7}));  // nothing to evaluate
}

TEST(ProbeKvmOrder, TextsAreComparedWithTheirEnd) {
  const auto probe =
      kvm::describe_probe(order_with({.field = FilterTerm::Field::comm, .text = "cat"}));
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->term[0].mask[0], 0xffffffffu);  // three letters and the NUL
  EXPECT_EQ(probe->term[0].mask[1], 0u);
  EXPECT_EQ(probe->term[0].text[0], 0x746163u);
  EXPECT_TRUE(probe->flags & kvm::probe_needs_task);
}

TEST(ProbeKvmOrder, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(kvm::describe_probe(
      order_with({.field = FilterTerm::Field::comm, .text = std::string(16, 'x')})));
  EXPECT_TRUE(kvm::describe_probe(
      order_with({.field = FilterTerm::Field::fetch, .text = std::string(63, 'x')})));
  EXPECT_FALSE(kvm::describe_probe(
      order_with({.field = FilterTerm::Field::fetch, .text = std::string(64, 'x')})));
  EXPECT_FALSE(kvm::describe_probe(order_with({.field = FilterTerm::Field::fetch, .index = 16})));
  ProbeOrder order{.site = {.function = "f"}};
  order.fetches.resize(17);
  EXPECT_FALSE(kvm::describe_probe(order));
  order.fetches = {{.size = 5000}};
  EXPECT_FALSE(kvm::describe_probe(order));
}

TEST(ProbeKvmOrder, CountingReadsNothing) {
  ProbeOrder order{.site = {.function = "f"}, .fetches = {{}}, .counts_only = true};
  const auto bare = kvm::describe_probe(order);
  ASSERT_TRUE(bare);
  EXPECT_EQ(bare->fetches, 0u);
  EXPECT_FALSE(bare->flags & kvm::probe_needs_task);
  order.filter = order_with({.field = FilterTerm::Field::fetch}).filter;
  const auto filtered = kvm::describe_probe(order);
  ASSERT_TRUE(filtered);
  EXPECT_EQ(filtered->fetches, 1u);
}

TEST(ProbeKvmOrder, OneProcessIsKnownByItsNumber) {
  ProbeOrder order{.site = {.user = true, .function = "f", .places = {{.tgid = 42}}}};
  EXPECT_EQ(kvm::describe_probe(order)->tgid, 0);
  order.site.any_process = false;
  EXPECT_EQ(kvm::describe_probe(order)->tgid, 42);
}

TEST(ProbeHypercall, RefusesVmsWhoseHypercallsAreNotKvms) {
  const auto refused = [](std::vector<std::string> arguments) {
    const auto checked = check_hypercalls(arguments);
    return !checked && checked.error().code == ErrorCode::unsupported;
  };
  EXPECT_FALSE(refused({"qemu", "-cpu", "host,la57=off", "-accel", "kvm", "-name", "hv-relaxed"}));
  EXPECT_FALSE(refused({"qemu", "-cpu", "host,hv-relaxed=off", "-cpu"}));
  EXPECT_TRUE(refused({"qemu", "-cpu", "host,migratable=on,hv-time=on,hv-relaxed=on"}));
  EXPECT_TRUE(refused({"qemu", "-cpu", "host,hv_vapic"}));
  EXPECT_TRUE(refused({"qemu", "-cpu", "host,+hv-passthrough"}));
  EXPECT_TRUE(refused({"qemu", "--cpu", "host,hv-passthrough"}));
  EXPECT_TRUE(refused({"qemu", "-global", "host-x86_64-cpu.hv-relaxed=on"}));
  EXPECT_TRUE(refused({"qemu", "-accel", "kvm,xen-version=0x40011,kernel-irqchip=split"}));
}

std::vector<std::byte> event_bytes(const kvm::event& event, std::string_view data) {
  std::vector<std::byte> all(sizeof(event) + data.size());
  std::memcpy(all.data(), &event, sizeof(event));
  std::memcpy(all.data() + sizeof(event), data.data(), data.size());
  return all;
}

std::string fetched_bytes(std::uint64_t value, std::string text) {
  const kvm::fetched head{.value = value, .size = static_cast<__u16>(text.size()), .ok = 1};
  text.resize((text.size() + 7) & ~std::size_t{7});
  return std::string(reinterpret_cast<const char*>(&head), sizeof(head)) + text;
}

TEST(ProbeKvmEvent, IsReadWithItsTexts) {
  const std::string data = fetched_bytes(0x1234, "/etc/passwd") + fetched_bytes(5, "");
  kvm::event event{.time = 9,
                   .known = 0xffff & ~(1u << 11),
                   .probe = 3,
                   .vcpu = 1,
                   .entry_fetches = 3,
                   .pid = 42,
                   .tgid = 41,
                   .size = static_cast<__u32>(data.size())};
  event.registers[kvm::kvm_rdi] = 77;
  std::memcpy(event.comm, "cat", 4);
  Hit hit;
  ASSERT_TRUE(kvm::read_event(event_bytes(event, data), {.address = site}, hit));
  EXPECT_EQ(hit.probe, 3u);
  EXPECT_EQ(hit.task.pid, 42);
  EXPECT_EQ(hit.task.name(), "cat");
  EXPECT_EQ(hit.registers.general[reg::rdi], 77u);
  EXPECT_FALSE(hit.registers.has(reg::r11));
  EXPECT_FALSE(hit.registers.has(reg::cr3));
  ASSERT_EQ(hit.fetched.size(), 3u);
  EXPECT_EQ(hit.fetched[0].bytes, "/etc/passwd");
  EXPECT_EQ(hit.fetched[1].value, 5u);
  EXPECT_FALSE(hit.fetched[2].ok);  // there was no room for it
}

TEST(ProbeKvmEvent, OfAProgramHasItsOwnAddressInsteadOfRax) {
  kvm::event event{.known = (0xffff & ~(1u << kvm::kvm_rax)) | kvm::rip_in_rax};
  event.registers[kvm::kvm_rax] = 0x7f0000001230;
  Hit hit;
  ASSERT_TRUE(kvm::read_event(event_bytes(event, ""), {.user = true}, hit));
  EXPECT_EQ(hit.registers.rip, 0x7f0000001230u);
  EXPECT_FALSE(hit.registers.has(reg::rax));
  EXPECT_TRUE(hit.registers.has(reg::rcx));
}

TEST(ProbeKvmEvent, CutShortIsAnError) {
  const std::string data = fetched_bytes(1, "0123456789");
  const kvm::event event{.entry_fetches = 1, .size = static_cast<__u32>(data.size())};
  const auto whole = event_bytes(event, data);
  Hit hit;
  ASSERT_TRUE(kvm::read_event(whole, {}, hit));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(kvm::read_event(std::span(whole).first(size), {}, hit)) << size;
  }
  kvm::event forged = event;
  forged.size = sizeof(kvm::fetched) + 8;  // the text would reach behind the end
  EXPECT_FALSE(kvm::read_event(event_bytes(forged, data), {}, hit));
}

}  // namespace
}  // namespace vmsight::probe_kvm_test
