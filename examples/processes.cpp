// The processes of a VM, with what they have in RAM.
//
//   c++ -std=c++20 processes.cpp $(pkg-config --cflags --libs vmsight) -o processes
//   sudo ./processes web1
#include <cstdio>
#include <string>
#include <string_view>

#include <vmsight/guest.h>
#include <vmsight/state.h>

int fail(const vmsight::Error& error) {
  std::fprintf(stderr, "processes: %s\nhint: %s\n", error.message.c_str(), error.hint.c_str());
  return 1;
}

/// What a guest calls itself may hold anything; a terminal must not obey it.
std::string printable(std::string_view text) {
  std::string shown(text);
  for (char& c : shown) {
    if (c < ' ' || c == 0x7f) c = '?';  // control characters, and all beyond ASCII
  }
  return shown;
}

int main(int count, char** words) {
  if (count != 2) return std::fputs("usage: processes VM\n", stderr), 2;
  if (auto set = vmsight::survive_lost_memory(); !set) return fail(set.error());
  const auto guest = vmsight::attach(words[1]);
  if (!guest) return fail(guest.error());
  const auto reader = vmsight::StateReader::create(*guest->kernel, *guest->memory);
  if (!reader) return fail(reader.error());
  vmsight::StateOptions options;
  options.parts = vmsight::part_processes;
  vmsight::State state;
  if (auto read = (*reader)->read(options, state); !read) return fail(read.error());
  for (const vmsight::Process& process : state.processes) {
    std::printf("%6d %8llu KiB  %s\n", process.pid,
                static_cast<unsigned long long>(process.rss_bytes.value_or(0) >> 10),
                printable(process.comm).c_str());
  }
  for (const vmsight::Problem& problem : state.problems) {
    std::fprintf(stderr, "%s: %s\n", problem.where.c_str(), problem.what.c_str());
  }
}
