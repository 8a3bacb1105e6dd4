#include "cli/watch_case.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <cerrno>

#include "base/os.h"
#include "cli/stack_reader.h"
#include "detect/sink.h"
#include "render/json.h"
#include "render/log.h"
#include "render/stacks.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

Result<void> write_file(const std::string& path, const std::function<void(Output&)>& write) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return os_error(errno, "write " + path);
  Output out(file.get());
  write(out);
  return out.finish();
}

Result<std::vector<TaskStack>> stacks_of(Guest& guest, const State& state, std::int32_t pid) {
  constexpr std::size_t most = 4096;
  VMSIGHT_TRY(StackReader reader, StackReader::create(guest, false));
  std::vector<TaskStack> stacks;
  VMSIGHT_TRY_VOID(in_one_view(*guest.memory, [&]() -> Result<void> {
    for (const Thread& thread : state.threads) {
      if ((pid == 0 || thread.tgid == pid) && stacks.size() < most)
        stacks.push_back(reader.read(thread));
    }
    return {};
  }));
  return stacks;
}

}  // namespace

Result<void> write_case(const std::string& folder, const detect::Alarm& alarm,
                        detect::GuestWatch& guest) {
  VMSIGHT_TRY_VOID(write_file(folder + "/alarm.json", [&](Output& out) {
    out.print("{}\n", format_alarm(alarm, detect::AlarmFormat::json, detect::host_name()));
  }));
  State state;
  VMSIGHT_TRY_VOID(guest.read(part_all | part_threads, state));
  VMSIGHT_TRY_VOID(write_file(folder + "/state.json", [&](Output& out) {
    write_document(out, summary_of(guest.guest()), state, {.parts = part_all | part_threads});
  }));
  VMSIGHT_TRY_VOID(write_file(folder + "/dmesg", [&](Output& out) {
    LogFormat format;
    format.boot_unix_ns = state.os.boot_unix_ns;
    print_log(out, state.kernel_log, format);
  }));
  VMSIGHT_TRY(const auto stacks, stacks_of(guest.guest(), state, alarm.pid));
  return write_file(folder + "/stacks", [&](Output& out) { print_stacks(out, stacks, true); });
}

}  // namespace vmsight
