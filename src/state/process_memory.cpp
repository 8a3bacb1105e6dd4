#include "state/process_memory.h"

#include <algorithm>

#include "base/text.h"
#include "state/user_memory.h"

namespace vmsight {

namespace {

// enum in include/linux/mm_types_task.h: file, anonymous, swap entries, shared memory
constexpr unsigned rss_counters[] = {0, 1, 3};

// execve() allows 6 MiB of arguments at most (3/4 of _STK_LIM).
constexpr std::uint64_t max_cmdline = 8u << 20;
constexpr std::uint64_t max_all_cmdlines = 64u << 20;
// Linux counts a pointer for each argument against the space for all (bprm_stack_limits() in fs/exec.c).
constexpr std::uint64_t max_arguments = max_cmdline / (sizeof(std::uint64_t) + 1);

}  // namespace

Result<ProcessMemoryReader> ProcessMemoryReader::resolve(Kernel& kernel,
                                                         const FileObjects& objects) {
  Members members(kernel);
  const auto mm = [&](std::string_view path) { return members.offset("mm_struct", path); };
  ProcessMemoryReader memory;
  memory.objects_ = objects;
  memory.at_ = {
      .pgd = mm("pgd"),
      .total_vm = mm("total_vm"),
      .locked_vm = mm("locked_vm"),
      .exe_file = mm("exe_file"),
      .arg_start = mm("arg_start"),
      .arg_end = mm("arg_end"),
      .env_start = mm("env_start"),
      .env_end = mm("env_end"),
      // Atomic counters, or since 6.2 per-CPU ones, whose common part /proc shows.
      .rss = members.offset("mm_struct", {"rss_stat.count", "rss_stat[0].count"}),
  };
  if (const auto second = kernel.member("mm_struct", "rss_stat[1].count")) {
    memory.counter_stride_ = second->offset - memory.at_.rss;
  }
  VMSIGHT_TRY_VOID(members.check());
  return memory;
}

void ProcessMemoryReader::read(ProcessContext& process, GuestVirt mm, Process& record) const {
  Reader& reader = process.reader();
  const std::uint64_t pages = reader.u64(mm + at_.total_vm), resident = resident_pages(reader, mm);
  const GuestVirt exe =
      process.proofs.expect(reader, mm + at_.exe_file, reader.pointer(mm + at_.exe_file));
  if (exe.raw() != 0) {
    const PathRef path = process.paths.read(objects_.path_of(exe));
    record.exe = process.paths.path(path);
    record.exe_file = objects_.facts_of(reader, path);
  }
  const std::uint64_t locked = reader.u64(mm + at_.locked_vm);
  if (!reader.ok()) return;
  record.vsize_bytes = pages * page_size;
  record.rss_bytes = resident * page_size;
  record.locked_bytes = locked * page_size;
  read_cmdline(process, mm, record);
}

std::uint64_t ProcessMemoryReader::resident_pages(Reader& reader, GuestVirt mm) const {
  std::uint64_t pages = 0;
  const Unrecorded moving(reader);
  for (unsigned i : rss_counters) {
    const auto count = static_cast<std::int64_t>(reader.u64(mm + at_.rss + i * counter_stride_));
    if (count > 0) pages += static_cast<std::uint64_t>(count);  // may be below 0 for a moment
  }
  return pages;
}

/// As get_mm_cmdline() in fs/proc/base.c: a program may have overwritten its arguments with a
/// title, which then ends at its first NUL and may run on into the environment.
void ProcessMemoryReader::read_cmdline(ProcessContext& process, GuestVirt mm,
                                       Process& record) const {
  Reader& reader = process.reader();
  const auto bound = [&](Offset at) {
    return process.proofs.expect(reader, mm + at, reader.u64(mm + at));
  };
  const std::uint64_t start = bound(at_.arg_start), end = bound(at_.arg_end);
  const std::uint64_t env_start = bound(at_.env_start), env_end = bound(at_.env_end);
  if (!reader.ok()) return;
  if (start >= end) {
    record.cmdline.emplace();
    return;
  }
  UserMemory memory(reader, reader.pointer(mm + at_.pgd));
  std::byte last{};
  const bool title = memory.copy(GuestVirt(end - 1), {&last, 1}) == 1 && last != std::byte{0};
  const bool overflows = env_start == end && env_end >= env_start;
  const std::uint64_t limit =
      title ? std::min<std::uint64_t>(page_size, (overflows ? env_end : end) - start) : end - start;
  const auto unread = [&](std::string_view why) {
    process.state().problem(fmt::format("process {}", record.pid),
                            fmt::format("its command line {}", why));
  };
  if (limit > max_cmdline || process.shared.cmdline_bytes + limit > max_all_cmdlines) {
    return unread("is too long");
  }
  process.shared.cmdline_bytes += limit;

  Arena& arena = process.context.arena();
  const std::span<char> into = arena.allocate(limit);
  const std::size_t got = memory.copy(GuestVirt(start), std::as_writable_bytes(into));
  std::string_view text = arena.shrink(into, got);
  const std::size_t nul = text.find('\0');
  if (title && nul != text.npos) text = text.substr(0, nul + 1);
  const bool whole = title ? nul != text.npos || got == limit : got == limit;
  if (!whole) return unread("is not in memory");
  const auto arguments = static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\0'));
  if (arguments > max_arguments) return unread("has too many arguments");
  process.shared.cmdline_bytes += arguments * sizeof(std::string_view);
  record.cmdline = split_arguments(text);
}

std::vector<std::string_view> split_arguments(std::string_view bytes) {
  return split_at(bytes, '\0');
}

}  // namespace vmsight
