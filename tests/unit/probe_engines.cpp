// What is known of engines before one is opened, and what a Prober refuses.
#include "probe/engine.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/memory_decorator.h"
#include "support/stub_vm.h"
#include "support/synthetic_guest.h"
#include "support/typed_kernel.h"

namespace vmsight::probe_engines_test {
namespace {

using namespace test;

class EmulatedVm final : public StubVm {
 public:
  EmulatedVm() { info_.accelerator = Accelerator::tcg; }
};

/// Says of itself what a test wants.
class MemoryOfNature final : public MemoryDecorator {
 public:
  MemoryOfNature(GuestMemory& inner, ViewNature nature) : MemoryDecorator(inner), nature_(nature) {}
  ViewNature nature() const override { return nature_; }

 private:
  ViewNature nature_;
};

class Engines : public ::testing::Test {
 protected:
  Error refusal(ViewNature nature, std::string engine = "auto") {
    MemoryOfNature memory(guest_.memory(), nature);
    const auto opened =
        Prober::open({.vm = vm_, .kernel = kernel_, .memory = memory, .engine = std::move(engine)});
    EXPECT_FALSE(opened);
    return opened ? Error{} : opened.error();
  }

  EmulatedVm vm_;
  SyntheticGuest guest_;
  TypedKernel kernel_{guest_.space(), nullptr};
};

TEST_F(Engines, SayWhatTheyCanDo) {
  const std::vector<EngineStatus> all = engine_status(vm_);
  const std::vector<std::string_view> names = engine_names();
  ASSERT_EQ(all.size(), names.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].abilities.name, names[i]);
    EXPECT_EQ(all[i].usable, all[i].reason.empty()) << names[i];
    EXPECT_FALSE(all[i].what.empty() || all[i].cost.empty()) << names[i];
  }
  // Where functions begin the guest need not stand; elsewhere it must.
  EXPECT_FALSE(all.front().abilities.stops_guest || all.front().abilities.any_instruction);
  EXPECT_TRUE(all.back().abilities.stops_guest && all.back().abilities.any_instruction);
}

TEST_F(Engines, HaveNoLimitOfPlacesWhereCpusAreEmulated) {
  const EngineAbilities emulated = gdbstub_engine.abilities(vm_.info());
  EXPECT_EQ(emulated.max_sites, 0u);
  const EngineAbilities real = gdbstub_engine.abilities({.accelerator = Accelerator::kvm});
  EXPECT_EQ(real.max_sites, 4u);
}

TEST_F(Engines, AnEngineThatCannotBeBlindSaysSo) {
  const EngineSetting setting{.vm = vm_,
                              .kernel = kernel_,
                              .memory = guest_.memory(),
                              .blind = EngineSetting::Blind::to_its_sites};
  EXPECT_EQ(gdbstub_engine.open(setting).error().code, ErrorCode::unsupported);
}

TEST_F(Engines, ProbesNeedMemoryThatIsLiveAndAsksNobody) {
  const Error halted = refusal({.one_moment = true, .halts = true});
  EXPECT_EQ(halted.code, ErrorCode::unsupported);
  EXPECT_NE(halted.message.find("it is not live"), std::string::npos) << halted.message;
  const Error asking = refusal({});
  EXPECT_EQ(asking.code, ErrorCode::unsupported);
  EXPECT_NE(asking.message.find("asks QEMU or the guest"), std::string::npos) << asking.message;
}

TEST_F(Engines, TheUserNamesOne) {
  const Error unknown = refusal({.passive = true}, "telepathy");
  EXPECT_EQ(unknown.code, ErrorCode::usage);
  for (const std::string_view name : engine_names())
    EXPECT_NE(unknown.hint.find(name), std::string::npos) << unknown.hint;
  const Error emulated = refusal({.passive = true}, "kvm");
  EXPECT_EQ(emulated.code, ErrorCode::unsupported);
  EXPECT_NE(emulated.message.find("the guest is emulated"), std::string::npos) << emulated.message;
}

}  // namespace
}  // namespace vmsight::probe_engines_test
