#include "cli/stop_signal.h"

#include <csignal>

namespace vmsight {
namespace {

volatile std::sig_atomic_t received = 0;
volatile std::sig_atomic_t reload_received = 0;

}  // namespace

void end_orderly_on(std::initializer_list<int> signals) {
  for (const int number : signals) {
    struct sigaction action {};
    action.sa_handler = [](int signal) { received = signal; };
    ::sigaction(number, &action, nullptr);
  }
}

bool told_to_end() { return received != 0; }

void reload_on(int signal) {
  struct sigaction action {};
  action.sa_handler = [](int) { reload_received = 1; };
  ::sigaction(signal, &action, nullptr);
}

bool take_reload() {
  const bool received_one = reload_received != 0;
  reload_received = 0;
  return received_one;
}

}  // namespace vmsight
