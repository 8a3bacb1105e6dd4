// Memory by a technique that holds a connection to QEMU, or borrows threads of it: whoever holds that owns QEMU, so it is
// the front that reads, and what interprets the bytes asks it for them.
//
//   KeptMemory, in the sandbox --- places ---> MemoryDesk, in the front --- a technique ---> guest
//                              <--- bytes ---
//
// The desk interprets none of the bytes. It believes nothing that it is asked: places outside RAM are not readable, and
// how much one question may ask for is bounded.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "vmsight/memory.h"

namespace vmsight {

class MemoryDesk {
 public:
  explicit MemoryDesk(std::unique_ptr<GuestMemory> memory) : memory_(std::move(memory)) {}

  /// Whether it is answered soon: reads are, to begin a view may take long.
  static bool is_brief(std::string_view question);

  /// A question of KeptMemory's. usage if it is none.
  Result<std::string> answer(std::string_view question);

 private:
  Result<std::string> read(std::string_view places, std::size_t count);

  std::unique_ptr<GuestMemory> memory_;
};

/// A question and its answer, by whatever leads to the desk.
using AskDesk = std::function<Result<std::string>(std::string_view question)>;

/// As the memory that is kept, whose RAM map, nature and name these are: what it does to the guest is done by the front.
Result<std::unique_ptr<GuestMemory>> open_kept_memory(AskDesk ask, RamMap ram, ViewNature nature,
                                                      std::string technique);

}  // namespace vmsight
