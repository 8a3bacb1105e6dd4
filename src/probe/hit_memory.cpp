#include "probe/hit_memory.h"

#include <algorithm>
#include <cstring>

#include "kernel/architecture.h"

namespace vmsight {

HitMemory::HitMemory(Reader& kernel, std::uint64_t cr3)
    : kernel_(kernel),
      user_(kernel.space().with_root(kernel.space().architecture().root_of(cr3))) {}

std::size_t HitMemory::copy(std::uint64_t va, std::span<std::byte> into) {
  if (kernel_.space().architecture().is_user(va))
    return user_.copy(kernel_.memory(), GuestVirt(va), into);
  kernel_.clear_fault();
  const std::size_t done = kernel_.copy(GuestVirt(va), into);
  kernel_.clear_fault();
  return done;
}

bool HitMemory::read(std::uint64_t va, std::span<std::byte> into) {
  return copy(va, into) == into.size();
}

std::optional<std::uint64_t> HitMemory::u64(std::uint64_t va) {
  std::uint64_t value = 0;
  if (!read(va, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
  return value;
}

Fetched HitMemory::fetch(const ProbeFetch& wanted, const ProbeRegisters& registers,
                         const ProbeRegisters& at_entry, GuestVirt task) {
  const ProbeRegisters& from = wanted.from_entry ? at_entry : registers;
  Fetched fetched;
  if (wanted.base == ProbeFetch::of_task) {
    if (task.raw() == 0) return fetched;
    fetched.value = task.raw();
  } else {
    if (wanted.base >= from.general.size() || !from.has(wanted.base)) return fetched;
    fetched.value = from.general[wanted.base];
  }
  for (std::size_t i = 0; i < wanted.step_count && i < wanted.steps.size(); ++i) {
    if (fetched.value == 0 && wanted.what == ProbeFetch::What::value) return fetched;
    if (fetched.value == 0) break;
    const auto next =
        u64(fetched.value + static_cast<std::uint64_t>(std::int64_t{wanted.steps[i]}));
    if (!next) return fetched;
    fetched.value = *next;
  }
  fetched.ok = fetched.has_value = true;
  if (fetched.value == 0) return fetched;
  fetched.value += static_cast<std::uint64_t>(std::int64_t{wanted.offset});
  const std::size_t size = std::min(wanted.size, ProbeFetch::max_size);
  if (wanted.what == ProbeFetch::What::string) read_string(fetched, size);
  if (wanted.what == ProbeFetch::What::bytes) {
    fetched.bytes.resize(size);
    fetched.ok = read(fetched.value, std::as_writable_bytes(std::span(fetched.bytes)));
    if (!fetched.ok) fetched.bytes.clear();
  }
  return fetched;
}

void HitMemory::read_string(Fetched& fetched, std::size_t size) {
  fetched.bytes.resize(size);
  const std::size_t present = copy(fetched.value, std::as_writable_bytes(std::span(fetched.bytes)));
  const std::size_t length = ::strnlen(fetched.bytes.data(), present);
  fetched.bytes.resize(length);
  fetched.ok = length < present || present == size;  // else it ends in a page that is not there
  fetched.cut = length == size;
}

}  // namespace vmsight
