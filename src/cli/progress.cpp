#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>
#include <cstdio>

#include "render/escape.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;
constexpr auto patience = 300ms;
constexpr auto interval = 100ms;  // between updates of the line
constexpr std::size_t line_width = 78;

}  // namespace

Progress::Progress()
    : terminal_(::isatty(STDERR_FILENO) == 1), start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

void Progress::say(std::string_view what) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - start_ < patience || now - last_ < interval) return;
  last_ = now;
  shown_ = true;
  const std::string text = for_terminal(what);
  fmt::print(stderr, "\r\x1b[K{}", clip(text, line_width));
  std::fflush(stderr);
}

}  // namespace vmsight
