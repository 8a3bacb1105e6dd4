// The C interface, on an image that holds a planted kernel: errors, sizes of structures, memory, symbols.
// tests/vm/library.py holds states, records and probes against real guests.
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "support/planted_image.h"
#include "vmsight/vmsight.h"

namespace vmsight::library_c_test {
namespace {

constexpr std::uint64_t ram_size = test::PlantedImage::ram_size;

class CInterface : public testing::Test {
 protected:
  vmsight_guest* attach() {
    vmsight_attach_options options = VMSIGHT_ATTACH_OPTIONS;
    options.cache_directory = "";
    vmsight_guest* guest = vmsight_attach(path.c_str(), &options, &why);
    EXPECT_NE(guest, nullptr) << why.message;
    return guest;
  }

  const test::PlantedImage planted;
  const std::string path = planted.path();
  const test::KernelSpec& spec = planted.spec();
  vmsight_error why = VMSIGHT_ERROR;
};

TEST_F(CInterface, TellsWhatItIsAttachedTo) {
  vmsight_guest* guest = attach();
  vmsight_guest_info info = VMSIGHT_GUEST_INFO;
  ASSERT_EQ(vmsight_info(guest, &info, &why), 0) << why.message;
  EXPECT_EQ(info.name, path);
  EXPECT_STREQ(info.technique, "file");
  EXPECT_EQ(info.banner, spec.banner);
  EXPECT_EQ(info.pid, 0);
  EXPECT_GT(info.memory_bytes, ram_size / 2);
  vmsight_detach(guest);
}

TEST_F(CInterface, ErrorsHaveCodeMessageAndHint) {
  EXPECT_EQ(vmsight_attach("no-such-vm", nullptr, &why), nullptr);
  EXPECT_EQ(why.code, VMSIGHT_NOT_FOUND);
  EXPECT_NE(std::strstr(why.message, "no-such-vm"), nullptr) << why.message;
  EXPECT_STRNE(why.hint, "");
  EXPECT_EQ(vmsight_attach("no-such-vm", nullptr, nullptr), nullptr) << "nobody wants to know why";
  EXPECT_EQ(vmsight_attach(nullptr, nullptr, &why), nullptr);
  EXPECT_EQ(why.code, VMSIGHT_USAGE);
}

/// As a program that was compiled with an earlier library has them.
TEST_F(CInterface, FillsInNoMoreThanTheProgramKnows) {
  struct {
    std::size_t size = offsetof(vmsight_error, message) + 16;
    char rest[sizeof(vmsight_error)];
  } shorter;
  std::memset(shorter.rest, 0x5a, sizeof shorter.rest);
  auto* error = reinterpret_cast<vmsight_error*>(&shorter);
  EXPECT_EQ(vmsight_attach("no-such-vm", nullptr, error), nullptr);
  EXPECT_EQ(error->code, VMSIGHT_NOT_FOUND);
  EXPECT_EQ(static_cast<unsigned char>(error->message[16]), 0x5a) << "beyond its end";
}

TEST_F(CInterface, RefusesStructuresWhoseSizeWasForgottenAndOptionsThatItDoesNotKnow) {
  vmsight_attach_options forgotten{};
  forgotten.no_pause = 1;
  EXPECT_EQ(vmsight_attach(path.c_str(), &forgotten, &why), nullptr);
  EXPECT_EQ(why.code, VMSIGHT_USAGE);
  struct {
    vmsight_attach_options options = VMSIGHT_ATTACH_OPTIONS;
    std::uint64_t newer = 0;
  } later;
  later.options.size = sizeof later;
  vmsight_guest* guest = vmsight_attach(path.c_str(), &later.options, &why);
  ASSERT_NE(guest, nullptr) << why.message;
  vmsight_guest_info info{};
  EXPECT_EQ(vmsight_info(guest, &info, &why), -1);
  EXPECT_EQ(why.code, VMSIGHT_USAGE);
  vmsight_detach(guest);
  later.newer = 1;
  EXPECT_EQ(vmsight_attach(path.c_str(), &later.options, &why), nullptr);
  EXPECT_EQ(why.code, VMSIGHT_UNSUPPORTED);
}

TEST_F(CInterface, NullIsAnErrorWhereItLeadsNowhere) {
  vmsight_guest* guest = attach();
  std::uint64_t address = 0;
  EXPECT_EQ(vmsight_symbol(guest, nullptr, &address, &why), -1);
  EXPECT_EQ(why.code, VMSIGHT_USAGE);
  EXPECT_EQ(vmsight_symbol(nullptr, "x", &address, nullptr), -1);
  EXPECT_EQ(vmsight_symbol(guest, "linux_banner", nullptr, nullptr), -1);
  EXPECT_EQ(vmsight_info(guest, nullptr, nullptr), -1);
  EXPECT_EQ(vmsight_symbol_at(guest, 0, nullptr, nullptr), -1);
  EXPECT_EQ(vmsight_print_json(guest, nullptr, nullptr), nullptr);
  EXPECT_EQ(vmsight_type_json(guest, nullptr, nullptr), nullptr);
  EXPECT_EQ(vmsight_read(guest, VMSIGHT_PHYSICAL, 0, 0, nullptr, 8, nullptr), -1);
  EXPECT_EQ(vmsight_read(guest, 7, 0, 0, &address, 8, nullptr), -1);
  EXPECT_EQ(vmsight_field_of(nullptr, 0, nullptr, nullptr), -1);
  EXPECT_EQ(vmsight_records_of(nullptr, "processes", nullptr), nullptr);
  EXPECT_EQ(vmsight_next_record(nullptr), 0);
  EXPECT_EQ(vmsight_state_problem(nullptr, 0), nullptr);
  EXPECT_EQ(vmsight_prober_open(nullptr, nullptr, nullptr), nullptr);
  EXPECT_EQ(vmsight_prober_poll(nullptr, 0, nullptr), -1);
  vmsight_free_records(nullptr);
  vmsight_free_state(nullptr);
  vmsight_prober_close(nullptr);
  vmsight_detach(nullptr);
  vmsight_free(nullptr);
  vmsight_detach(guest);
}

TEST_F(CInterface, ReadsMemoryByKernelAndPhysicalAddresses) {
  vmsight_guest* guest = attach();
  std::uint64_t banner = 0;
  ASSERT_EQ(vmsight_symbol(guest, "linux_banner", &banner, &why), 0) << why.message;
  char text[16] = "";
  EXPECT_EQ(vmsight_read(guest, VMSIGHT_KERNEL, 0, banner, text, 13, &why), 13) << why.message;
  EXPECT_EQ(std::string_view(text, 13), spec.banner.substr(0, 13));
  ASSERT_EQ(vmsight_begin_view(guest, &why), 0);
  EXPECT_EQ(vmsight_begin_view(guest, &why), -1);
  EXPECT_EQ(why.code, VMSIGHT_USAGE);
  EXPECT_EQ(vmsight_read(guest, VMSIGHT_PHYSICAL, 0, 0x2000, text, 8, &why), 8);
  EXPECT_EQ(vmsight_read_state(guest, nullptr, &why), nullptr) << "a state is a view of its own";
  EXPECT_EQ(vmsight_end_view(guest, &why), 0);
  EXPECT_EQ(vmsight_end_view(guest, &why), -1);
  EXPECT_EQ(vmsight_read(guest, VMSIGHT_PHYSICAL, 0, ram_size - 4, text, 8, &why), 4);
  EXPECT_EQ(vmsight_read(guest, VMSIGHT_KERNEL, 0, 0x1000, text, 8, &why), 0);
  vmsight_detach(guest);
}

TEST_F(CInterface, SymbolsThatAreNotThereAreErrors) {
  vmsight_guest* guest = attach();
  std::uint64_t address = 0;
  EXPECT_EQ(vmsight_symbol(guest, "no_such_symbol", &address, &why), -1);
  EXPECT_EQ(why.code, VMSIGHT_NOT_FOUND);
  vmsight_member member = VMSIGHT_MEMBER;
  EXPECT_EQ(vmsight_member_of(guest, "no_such_type", "x", &member, &why), -1);
  EXPECT_EQ(vmsight_size_of(guest, "no_such_type", &why), -1);
  EXPECT_EQ(vmsight_type_json(guest, "no_such_type", &why), nullptr);
  EXPECT_EQ(vmsight_print_json(guest, "no_such_symbol", &why), nullptr);
  EXPECT_EQ(vmsight_prober_open(guest, nullptr, &why), nullptr);
  EXPECT_EQ(why.code, VMSIGHT_UNSUPPORTED) << "nothing runs in an image";
  vmsight_detach(guest);
}

TEST(CKinds, HaveFieldsWithTheirMeaning) {
  vmsight_field field = VMSIGHT_FIELD;
  std::size_t kinds = 0;
  for (; vmsight_kind(kinds) != nullptr; ++kinds) {
    std::size_t fields = 0;
    while (vmsight_field_of(vmsight_kind(kinds), fields, &field, nullptr) == 1) {
      EXPECT_STRNE(field.name, "");
      ++fields;
    }
    EXPECT_GT(fields, 3U) << vmsight_kind(kinds);
  }
  EXPECT_GE(kinds, 11U);
  vmsight_error why = VMSIGHT_ERROR;
  EXPECT_EQ(vmsight_field_of("no-such-kind", 0, &field, &why), -1);
  EXPECT_EQ(why.code, VMSIGHT_USAGE);
}

TEST_F(CInterface, DifferentGuestsMayBeUsedByDifferentThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      vmsight_error error = VMSIGHT_ERROR;
      vmsight_guest* guest = vmsight_attach(path.c_str(), nullptr, &error);
      EXPECT_NE(guest, nullptr) << error.message;
      std::uint64_t banner = 0;
      EXPECT_EQ(vmsight_symbol(guest, "linux_banner", &banner, &error), 0);
      vmsight_detach(guest);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace vmsight::library_c_test
