#include "state/change_counts.h"

namespace vmsight {

Result<ChangeCounts> ChangeCounts::resolve(Kernel& kernel, GuestMemory& memory) {
  // Both are a seqlock_t, which begins with its 32-bit count; odd while a writer is at work.
  const auto find = [&](std::string_view symbol) {
    const auto address = kernel.symbol(symbol);
    return Count{address ? kernel.space().translate(memory, *address) : std::nullopt};
  };
  ChangeCounts counts;
  counts.rename_ = find("rename_lock");
  counts.mount_ = find("mount_lock");
  return counts;
}

Result<void> ChangeCounts::begin(GuestMemory& memory) {
  for (Count* count : {&rename_, &mount_}) {
    if (!count->at) continue;
    VMSIGHT_TRY(count->before, read(memory, *count->at));
  }
  return {};
}

Result<std::uint32_t> ChangeCounts::read(GuestMemory& memory, GuestPhys at) {
  std::uint32_t value = 0;
  FreshRead read{at, std::as_writable_bytes(std::span(&value, 1))};
  VMSIGHT_TRY_VOID(memory.read_fresh({&read, 1}));
  if (!read.ok) {
    return Error{.code = ErrorCode::fault,
                 .message = fmt::format("read a sequence count: {} is not readable", at),
                 .address = at.raw()};
  }
  return value;
}

Result<bool> ChangeCounts::changed(GuestMemory& memory, const Count& count) {
  if (!count.at) return true;
  VMSIGHT_TRY(const std::uint32_t now, read(memory, *count.at));
  return now != count.before || (now & 1) != 0;
}

}  // namespace vmsight
