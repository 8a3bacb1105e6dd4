#include "render/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "render/escape.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

/// An exception that nobody caught: those of libraries are turned into errors where they arise.
ExitStatus report_bug(std::string_view what) {
  return report_error({.code = ErrorCode::os,
                       .message = fmt::format("a bug of vmsight: {}", what),
                       .hint = "please report it, with the command and `vmsight --version`"});
}

/// The reader of our output went away (`vmsight ps vm | head`): end as any filter does.
[[noreturn]] void die_of_sigpipe() {
  std::signal(SIGPIPE, SIG_DFL);
  std::raise(SIGPIPE);
  std::_Exit(exit_failed);
}

/// A file that is opened later must not become what standard output was meant to be.
void have_standard_descriptors() {
  int opened = 0;
  while ((opened = ::open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && opened <= STDERR_FILENO)
    continue;
  if (opened >= 0) ::close(opened);
}

void set_up() {
  have_standard_descriptors();
  std::setlocale(LC_CTYPE, "C.UTF-8");
  std::signal(SIGPIPE, SIG_IGN);
  static_cast<void>(survive_lost_memory());  // else nothing is mapped, and says so
}

ExitStatus run(Output& out, const std::function<Result<void>()>& work) {
  Result<void> done = work();
  if (done) done = out.finish();
  if (done) return exit_done;
  if (done.error().os_errno == EPIPE && out.failed()) die_of_sigpipe();
  // What was found before the error is worth seeing; a second failure adds nothing.
  static_cast<void>(out.finish());
  return report_error(done.error());
}

}  // namespace

ExitStatus exit_status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::usage:
      return exit_usage;
    case ErrorCode::unsupported:
      return exit_impossible;
    default:
      return exit_failed;
  }
}

ExitStatus report_error(const Error& error) {
  fmt::print(stderr, "vmsight: {}\n", for_terminal(error.message));
  const bool gone = error.code == ErrorCode::vm_gone && error.hint.empty();
  const std::string hint =
      gone ? "the VM was shut down or died; `vmsight list` shows what runs" : error.hint;
  if (!hint.empty()) fmt::print(stderr, "hint: {}\n", for_terminal(hint));
  return exit_status_of(error.code);
}

int run_program(Output& out, const std::function<Result<void>()>& work) {
  set_up();
  try {
    return run(out, work);
  } catch (const std::bad_alloc&) {
    return report_error({.code = ErrorCode::os, .message = "out of memory"});
  } catch (const std::exception& error) {
    return report_bug(error.what());
  } catch (...) {
    return report_bug("an exception of no known kind");
  }
}

}  // namespace vmsight
