#include <algorithm>
#include <charconv>
#include <chrono>
#include <numeric>
#include <thread>

#include "base/clock.h"
#include "kernel/architecture.h"
#include "kernel/bytes.h"
#include "kernel/found_kernel.h"

namespace vmsight {
namespace {

// A running kernel's clock moves every 1 to 10 ms; that of an idle, tickless guest when a timer
// wakes it, which takes up to a second.
constexpr std::uint64_t clock_wait_ns = 1'500'000'000;
constexpr auto clock_poll = std::chrono::milliseconds(2);

using Indices = std::vector<std::size_t>;

bool is_chosen(const KernelCandidate& candidate, const std::string& choice) {
  unsigned index = 0;
  const auto [end, error] = std::from_chars(choice.data(), choice.data() + choice.size(), index);
  if (error == std::errc() && end == choice.data() + choice.size() && index == candidate.index)
    return true;
  constexpr std::size_t shortest_prefix = 4;  // shorter ones read as indices
  return choice.size() >= shortest_prefix && candidate.build_id.starts_with(choice);
}

Result<Indices> chosen_by_user(const std::vector<FoundKernel>& kernels,
                               const std::optional<std::string>& choice) {
  Indices indices(kernels.size());
  std::iota(indices.begin(), indices.end(), 0);
  if (!choice) return indices;
  std::erase_if(indices, [&](std::size_t i) { return !is_chosen(kernels[i].candidate, *choice); });
  if (indices.empty()) {
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("choose kernel \"{}\": no such kernel", *choice),
                 .hint = "found: " + describe(kernels)};
  }
  return indices;
}

/// A kernel that crashed has stopped its CPUs for good: they may map it still, but what runs, if
/// anything does, is the kernel that it started to take a dump.
bool has_crashed(GuestMemory& memory, FoundKernel& kernel) {
  const auto symbol = kernel.symbols->find(kernel.image.architecture->crash_flag);
  std::uint32_t issued = 0;
  if (!symbol || !*symbol) return false;
  const GuestPhys at = kernel.image.physical(**symbol);
  return read_phys(memory, at, std::as_writable_bytes(std::span(&issued, 1))) && issued != 0;
}

/// The one that did not crash, if all others of several did.
std::optional<std::size_t> only_sound_one(GuestMemory& memory, std::vector<FoundKernel>& kernels,
                                          Indices which) {
  if (which.size() < 2) return std::nullopt;
  std::erase_if(which, [&](std::size_t i) { return has_crashed(memory, kernels[i]); });
  return which.size() == 1 ? std::optional(which.front()) : std::nullopt;
}

Indices mapped_by(GuestMemory& memory, const std::vector<FoundKernel>& kernels,
                  const Indices& which, std::span<const std::uint64_t> tables) {
  Indices mapped;
  for (const std::size_t i : which) {
    if (is_mapped_by(memory, kernels[i].image, tables)) mapped.push_back(i);
  }
  return mapped;
}

/// jiffies_64 of each; nullopt where it cannot be read.
std::vector<std::optional<std::uint64_t>> read_clocks(GuestMemory& memory,
                                                      std::vector<FoundKernel>& kernels,
                                                      const Indices& which) {
  std::vector<std::uint64_t> values(which.size());
  std::vector<FreshRead> reads(which.size());
  for (std::size_t i = 0; i < which.size(); ++i) {
    const FoundKernel& kernel = kernels[which[i]];
    const auto symbol = kernel.symbols->find("jiffies_64");
    const GuestPhys at = symbol && *symbol ? kernel.image.physical(**symbol) : GuestPhys(~7ULL);
    reads[i] = {at, std::as_writable_bytes(std::span(&values[i], 1))};
  }
  std::vector<std::optional<std::uint64_t>> clocks(which.size());
  if (!memory.read_fresh(reads)) return clocks;
  for (std::size_t i = 0; i < which.size(); ++i) {
    if (reads[i].ok) clocks[i] = values[i];
  }
  return clocks;
}

/// The kernel whose clock moves first.
std::optional<std::size_t> moving_clock(GuestMemory& memory, std::vector<FoundKernel>& kernels,
                                        const Indices& which) {
  const Stopwatch watch;
  const auto before = read_clocks(memory, kernels, which);
  while (watch.elapsed_ns() < clock_wait_ns) {
    std::this_thread::sleep_for(clock_poll);
    const auto now = read_clocks(memory, kernels, which);
    for (std::size_t i = 0; i < which.size(); ++i) {
      if (before[i] && now[i] && *before[i] != *now[i]) return which[i];
    }
  }
  return std::nullopt;
}

struct Choice {
  std::size_t index = 0;
  const char* why = "";
};

/// What page tables tell, without waiting for clocks.
std::optional<Choice> told_by_tables(GuestMemory& memory, std::vector<FoundKernel>& kernels,
                                     const FindKernelOptions& options, const Indices& which) {
  if (options.page_table) {
    const std::uint64_t table = options.page_table->raw();
    const Indices named = mapped_by(memory, kernels, which, std::span(&table, 1));
    if (named.size() == 1) return Choice{named.front(), "the image names it"};
  }
  const Indices mapped = mapped_by(memory, kernels, which, options.cr3);
  if (mapped.size() == 1) return Choice{mapped.front(), "a vCPU's page table maps it"};
  const bool no_tables = options.cr3.empty() && !memory.is_live();
  if (mapped.empty() && !no_tables) return std::nullopt;
  const auto sound = only_sound_one(memory, kernels, mapped.empty() ? which : mapped);
  if (!sound) return std::nullopt;
  return Choice{*sound, mapped.empty() ? "the others have crashed"
                                       : "a vCPU's page table maps it, and it has not crashed"};
}

std::size_t settle(std::vector<FoundKernel>& kernels, std::size_t chosen, std::string why) {
  for (FoundKernel& kernel : kernels) {
    if (kernel.candidate.why.empty()) kernel.candidate.why = "no sign that it runs";
  }
  kernels[chosen].candidate.live = true;
  kernels[chosen].candidate.why = std::move(why);
  return chosen;
}

Error ambiguous(const std::vector<FoundKernel>& kernels, std::size_t others) {
  const std::string damaged = others == 0 ? "" : fmt::format(" and {} that make no sense", others);
  return {.code = ErrorCode::ambiguous,
          .message = fmt::format("find the running kernel: {}{} are in memory and none shows that "
                                 "it runs: {}",
                                 kernels.size(), damaged, describe(kernels)),
          .hint = "choose one with --kernel INDEX or --kernel BUILD-ID"};
}

Error leftover(const FoundKernel& kernel) {
  return {.code = ErrorCode::not_found,
          .message = fmt::format("find the running kernel: \"{}\" is in memory, but no vCPU maps "
                                 "it and its clock stands still",
                                 kernel.image.banner),
          .hint =
              "the guest may have been reset and be in its firmware or boot loader; "
              "--kernel 0 reads it all the same"};
}

}  // namespace

std::optional<std::uint64_t> read_clock(GuestMemory& memory, const FoundKernel& kernel) {
  const auto symbol = kernel.symbols->find("jiffies_64");
  if (!symbol || !*symbol) return std::nullopt;
  std::uint64_t value = 0;
  FreshRead read{kernel.image.physical(**symbol), std::as_writable_bytes(std::span(&value, 1))};
  if (!memory.read_fresh({&read, 1}) || !read.ok) return std::nullopt;
  return value;
}

std::string describe(const std::vector<FoundKernel>& kernels) {
  std::string text;
  for (const FoundKernel& kernel : kernels) {
    text += fmt::format("{}{}: {} (build-id {}, at {})", text.empty() ? "" : "; ",
                        kernel.candidate.index, kernel.candidate.banner,
                        kernel.candidate.build_id.substr(0, 12), kernel.candidate.rodata);
  }
  return text;
}

Result<std::size_t> choose_kernel(GuestMemory& memory, std::vector<FoundKernel>& kernels,
                                  const FindKernelOptions& options, std::size_t others) {
  VMSIGHT_CHECK(!kernels.empty());
  VMSIGHT_TRY(const Indices left, chosen_by_user(kernels, options.choose));
  const bool only_one = left.size() == 1;
  if (options.choose && only_one) return settle(kernels, left.front(), "chosen by --kernel");
  if (const auto told = told_by_tables(memory, kernels, options, left))
    return settle(kernels, told->index, told->why);
  const bool doubtful = memory.is_live() && (!options.cr3.empty() || others > 0);
  if (only_one && !doubtful) return settle(kernels, left.front(), "the only one in memory");
  if (!memory.is_live()) return ambiguous(kernels, others);
  if (options.progress) options.progress("waiting to see which kernel's clock moves");
  if (const auto moving = moving_clock(memory, kernels, left))
    return settle(kernels, *moving, "its clock moves");
  if (only_one && !options.cr3.empty()) return leftover(kernels[left.front()]);
  return ambiguous(kernels, others);
}

}  // namespace vmsight
