#include "cli/stop_signal.h"

#include <csignal>

namespace vmsight {
namespace {

volatile std::sig_atomic_t received = 0;

}  // namespace

void end_orderly_on(std::initializer_list<int> signals) {
  for (const int number : signals) {
    struct sigaction action {};
    action.sa_handler = [](int signal) { received = signal; };
    ::sigaction(number, &action, nullptr);
  }
}

bool told_to_end() { return received != 0; }

}  // namespace vmsight
