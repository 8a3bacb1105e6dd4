// Runs a fuzz target over its saved corpus, in a build without libFuzzer. Each input lies in a
// heap block of exactly its size, so that a sanitizer or valgrind sees a read beyond its end.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

namespace fs = std::filesystem;

bool run_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const auto size = static_cast<std::size_t>(fs::file_size(path));
  const std::unique_ptr<std::uint8_t[]> data(new std::uint8_t[size]);
  if (!file.read(reinterpret_cast<char*>(data.get()), static_cast<std::streamsize>(size))) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    return false;
  }
  // Shown before it runs: after a crash, the last line names the input.
  std::printf("%s (%zu bytes)\n", path.c_str(), size);
  std::fflush(stdout);
  LLVMFuzzerTestOneInput(data.get(), size);
  return true;
}

std::vector<fs::path> files_of(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

/// replay CORPUS_DIRECTORY
int main(int argc, char** argv) {
  if (argc != 2 || !fs::is_directory(argv[1])) {
    std::fprintf(stderr, "usage: replay CORPUS_DIRECTORY (it must exist)\n");
    return 2;
  }
  const std::vector<fs::path> files = files_of(argv[1]);
  if (files.empty()) {
    std::fprintf(stderr, "%s: the corpus is empty\n", argv[1]);
    return 1;
  }
  bool good = true;
  for (const fs::path& file : files) good = run_file(file) && good;
  std::printf("%zu inputs\n", files.size());
  return good ? 0 : 1;
}
