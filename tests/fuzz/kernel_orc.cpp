// A forged stack and forged ORC tables: unwinding ends, within the stack.
//
// Input: a byte for the format, one for the number of rules, their distances (u8 each), their
// 6 bytes each, then words of the stack from the saved stack pointer on: {u8 what, u16 where}.
#include "support/fuzz_input.h"
#include "support/orc_guest.h"

namespace {

using namespace vmsight;
using test::OrcFormat;
using test::OrcGuest;

std::uint64_t take_word(const OrcGuest& guest, test::FuzzInput& input) {
  const auto what = input.take<std::uint8_t>();
  const auto where = input.take<std::uint16_t>();
  switch (what % 4) {
    case 0:
      return where;
    case 1:
      return guest.guest.image(where).raw();
    case 2:
      return (guest.stack + where).raw();
    default:
      return (guest.guest.image(0x300000) + where).raw();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::array<OrcGuest, 3> guests = {OrcGuest(OrcFormat::with_end_bit),
                                           OrcGuest(OrcFormat::with_signal_bit),
                                           OrcGuest(OrcFormat::renumbered)};
  test::FuzzInput input(data, size);
  OrcGuest& guest = guests[input.take<std::uint8_t>() % guests.size()];
  std::vector<OrcGuest::Entry> rows(input.take<std::uint8_t>());
  std::uint64_t code = 0;
  for (OrcGuest::Entry& row : rows) row.code = code += input.take<std::uint8_t>();
  // The rules are written over by raw bytes; that of schedule() behind them stays.
  auto tables = guest.make_tables(rows);
  if (!tables) return 0;
  guest.guest.write(guest.entries(), input.take_bytes(6 * rows.size()));
  std::vector<std::uint64_t> words;
  while (words.size() < 7 || (!input.empty() && words.size() < 512)) {
    words.push_back(take_word(guest, input));
  }
  guest.put_stack(words);
  auto result = (*tables)->unwind(guest.reader, guest.task);
  VMSIGHT_CHECK(result.has_value());
  VMSIGHT_CHECK(result->complete || !result->stopped.empty());
  VMSIGHT_CHECK(result->frames.size() <= 256);
  return 0;
}
