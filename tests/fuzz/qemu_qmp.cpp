// A peer that says anything: the layout is asked for, and every answer is taken or refused.
#include <sys/socket.h>

#include "qemu/monitor_questions.h"
#include "qemu/qmp.h"
#include "qemu/run_state.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  constexpr std::size_t socket_buffer = 60000;  // what a send() takes at once
  int ends[2];
  VMSIGHT_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  static_cast<void>(::send(theirs.get(), data, std::min(size, socket_buffer), MSG_NOSIGNAL));
  ::shutdown(theirs.get(), SHUT_WR);
  auto client = QmpClient::negotiate(std::move(ours));
  if (!client) return 0;
  CommandLine line;
  line.main_memory.push_back({.id = "pc.ram", .size = 512u << 20});
  const auto layout = ask_layout(*client, line);
  if (layout) static_cast<void>(RamMap::from(layout->ranges));
  static_cast<void>(ask_registers(*client));
  static_cast<void>(ask_run_state(*client));
  return 0;
}
