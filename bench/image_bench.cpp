// A whole state of a compressed image, cold, beside the least that any tool must do: unpacking the
// pages that it touches.
//
//   image_bench IMAGE [--rounds 15] [--json]
//
// Each round reads a state through a new view, which has nothing unpacked yet; then unpacks the same
// pages one after the other. The best round counts. The kernel is found once, before.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "image/image_bytes.h"
#include "must.h"
#include "recording_memory.h"
#include "vmsight/guest.h"
#include "vmsight/state.h"

using namespace vmsight;
using vmsight::bench::must;
using Clock = std::chrono::steady_clock;

namespace {

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

const ImageSegment& segment_of(const Image& image, GuestPhys page) {
  return *std::find_if(image.segments.begin(), image.segments.end(), [&](const ImageSegment& s) {
    return page >= s.start && page - s.start < s.size;
  });
}

double unpack_all(const Image& image, const std::vector<GuestPhys>& pages) {
  std::vector<std::byte> frame(page_size);
  const auto start = Clock::now();
  for (const GuestPhys page : pages) {
    const ImageSegment& segment = segment_of(image, page);
    static_cast<void>(image.bytes->read(segment.file_offset + (page - segment.start), frame));
  }
  return ms_since(start);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures a state of a compressed image against unpacking the pages it touches");
  std::string path;
  unsigned rounds = 15;
  bool json = false;
  app.add_option("IMAGE", path)->required();
  app.add_option("--rounds", rounds);
  app.add_flag("--json", json);
  CLI11_PARSE(app, argc, argv);

  Guest guest = must(attach(path, {}));
  double best_state = 1e9, best_unpack = 1e9;
  std::vector<GuestPhys> pages;
  State state;
  {
    const auto memory = must(open_file_view(*guest.image));
    bench::RecordingMemory recording(*memory);
    must(must(StateReader::create(*guest.kernel, recording))->read({}, state));
    pages = recording.touched();
  }
  for (unsigned i = 0; i < rounds; ++i) {
    const auto memory = must(open_file_view(*guest.image));
    const auto start = Clock::now();
    must(must(StateReader::create(*guest.kernel, *memory))->read({}, state));
    best_state = std::min(best_state, ms_since(start));
    best_unpack = std::min(best_unpack, unpack_all(*guest.image, pages));
  }
  const double ratio = best_state / best_unpack;
  if (json) {
    fmt::print("{}\n", nlohmann::json({{"format", guest.image->format},
                                       {"pages", pages.size()},
                                       {"state_ms", best_state},
                                       {"unpack_ms", best_unpack},
                                       {"ratio", ratio}})
                           .dump());
  } else {
    fmt::print("{}: a state touches {} pages: {:.1f} ms; to unpack them: {:.1f} ms; {:.2f} times\n",
               guest.image->format, pages.size(), best_state, best_unpack, ratio);
  }
  return 0;
}
