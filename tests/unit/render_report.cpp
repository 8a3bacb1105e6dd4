// How programs end: errors as one line and a hint, the exit status, and what was found before the error.
#include "render/report.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>

#include "base/os.h"

namespace vmsight::render_report_test {
namespace {

struct Ended {
  int status = 0;
  std::string written, said;
};

Ended end_of(const std::function<Result<void>(Output&)>& work) {
  const UniqueFd file(::memfd_create("output", MFD_CLOEXEC));
  Output out(file.get());
  testing::internal::CaptureStderr();
  Ended ended;
  ended.status = run_program(out, [&] { return work(out); });
  ended.said = testing::internal::GetCapturedStderr();
  std::array<char, 256> text{};
  const ssize_t size = ::pread(file.get(), text.data(), text.size(), 0);
  ended.written.assign(text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  return ended;
}

TEST(RunProgram, WritesAllAndSaysNothing) {
  const Ended ended = end_of([](Output& out) -> Result<void> {
    out.write("found");
    return {};
  });
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(ended.written, "found");
  EXPECT_EQ(ended.said, "");
}

TEST(RunProgram, WritesWhatWasFoundBeforeTheError) {
  const Ended ended = end_of([](Output& out) -> Result<void> {
    out.write("found");
    return Error{.code = ErrorCode::not_found, .message = "no \x1b[31mVM", .hint = "start one"};
  });
  EXPECT_EQ(ended.status, 1);
  EXPECT_EQ(ended.written, "found");
  EXPECT_EQ(ended.said, "vmsight: no \\x1b[31mVM\nhint: start one\n");
}

TEST(RunProgram, HasAStatusForWrongUsageAndForWhatIsNotPossible) {
  const auto status_of = [](ErrorCode code) {
    return end_of([&](Output&) -> Result<void> { return Error{.code = code, .message = "no"}; })
        .status;
  };
  EXPECT_EQ(status_of(ErrorCode::usage), 2);
  EXPECT_EQ(status_of(ErrorCode::unsupported), 3);
  EXPECT_EQ(status_of(ErrorCode::permission), 1);
  EXPECT_EQ(status_of(ErrorCode::vm_gone), 1);
}

TEST(RunProgram, TellsWhatToDoIfTheVmIsGone) {
  const Ended ended = end_of([](Output&) -> Result<void> {
    return Error{.code = ErrorCode::vm_gone, .message = "the VM has ended"};
  });
  EXPECT_NE(ended.said.find("hint: the VM was shut down or died"), std::string::npos) << ended.said;
}

TEST(RunProgram, TakesAnExceptionForABug) {
  const Ended ended =
      end_of([](Output&) -> Result<void> { throw std::runtime_error("out of range"); });
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(ended.said.starts_with("vmsight: a bug of vmsight: out of range\nhint: "));
  const Ended full = end_of([](Output&) -> Result<void> { throw std::bad_alloc(); });
  EXPECT_EQ(full.said, "vmsight: out of memory\n");
}

TEST(TerminalWidth, IsNothingForAFile) {
  const UniqueFd file(::memfd_create("file", MFD_CLOEXEC));
  EXPECT_EQ(terminal_width(file.get()), 0u);
}

}  // namespace
}  // namespace vmsight::render_report_test
