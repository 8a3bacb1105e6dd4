// BackgroundOutput: what is written comes out whole and in order, and nobody waits for the reader.
#include "cli/background_output.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <array>
#include <csignal>
#include <thread>

#include "base/os.h"

namespace vmsight::cli_background_output_test {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) std::abort();
    reader = UniqueFd(ends[0]);
    writer = UniqueFd(ends[1]);
  }
  /// Up to so many bytes, or to the end.
  std::string read(std::size_t most) const {
    std::string all;
    std::array<char, 4096> piece;
    while (all.size() < most) {
      const ssize_t got =
          ::read(reader.get(), piece.data(), std::min(piece.size(), most - all.size()));
      if (got <= 0) break;
      all.append(piece.data(), static_cast<std::size_t>(got));
    }
    return all;
  }
  UniqueFd reader, writer;
};

TEST(BackgroundOutput, WritesAllInOrder) {
  Pipe pipe;
  std::string expected, read;
  std::thread reader([&] { read = pipe.read(~std::size_t{0}); });
  {
    BackgroundOutput output(pipe.writer.get());
    for (int line = 0; line < 20'000; ++line) {
      const std::string text = std::to_string(line) + "\n";
      expected += text;
      EXPECT_TRUE(output.write(text));
    }
    EXPECT_TRUE(output.finish());
    EXPECT_FALSE(output.failed());
    EXPECT_EQ(output.dropped(), 0U);
  }
  pipe.writer.reset();
  reader.join();
  EXPECT_TRUE(read == expected) << read.size() << " of " << expected.size() << " bytes";
}

TEST(BackgroundOutput, DropsWhatHasNoRoomInsteadOfWaiting) {
  Pipe pipe;
  BackgroundOutput output(pipe.writer.get());
  const std::string line(1 << 20, 'x');
  std::size_t taken = 0;
  for (int i = 0; i < 40; ++i) taken += output.write(line) ? line.size() : 0;  // nobody reads
  EXPECT_GE(taken, BackgroundOutput::most_waiting - line.size());
  EXPECT_LE(taken, 2 * BackgroundOutput::most_waiting);  // what is being written has left the queue
  EXPECT_EQ(output.dropped(), 40 - taken / line.size());
  EXPECT_EQ(pipe.read(taken).size(), taken);
  EXPECT_TRUE(output.finish());
}

TEST(BackgroundOutput, AReaderThatLeavesIsAnErrorOnce) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  pipe.reader.reset();
  BackgroundOutput output(pipe.writer.get());
  EXPECT_TRUE(output.write("lost\n"));
  const auto finished = output.finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().os_errno, EPIPE);
  EXPECT_TRUE(output.failed());
  EXPECT_TRUE(output.write("nobody hears that\n"));
}

}  // namespace
}  // namespace vmsight::cli_background_output_test
