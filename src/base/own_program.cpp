#include "base/own_program.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace vmsight {
namespace {

/// What our code is in, if that is one of our own: the program, or libvmsight.so. Whatever lies beside
/// the program of somebody else who uses the library is none of ours.
std::filesystem::path our_file() {
  std::error_code failed;
  Dl_info info{};
  const bool known = ::dladdr(reinterpret_cast<const void*>(&our_file), &info) != 0;
  const std::filesystem::path object = known && info.dli_fname ? info.dli_fname : "";
  if (object.filename().string().starts_with("libvmsight.so")) {
    return std::filesystem::canonical(object, failed);
  }
  return std::filesystem::read_symlink("/proc/self/exe", failed);
}

/// The folders that it may be in, the best first.
std::vector<std::filesystem::path> folders() {
  std::vector<std::filesystem::path> found;
  if (const auto self = our_file(); self.is_absolute()) {
    const auto folder = self.parent_path();
    const auto prefix = folder.parent_path();  // of bin/vmsight and lib/libvmsight.so
    found = {folder, prefix / "libexec/vmsight"};
    if (prefix.filename() == "lib") found.push_back(prefix.parent_path() / "libexec/vmsight");
  }
  found.emplace_back(VMSIGHT_LIBEXEC_DIR "/vmsight");
  return found;
}

bool is_executable(const std::string& file) { return ::access(file.c_str(), X_OK) == 0; }

}  // namespace

Result<std::string> own_program(const std::string& name, const std::string& variable) {
  std::string program;
  if (const char* named = ::secure_getenv(variable.c_str()); named != nullptr && named[0] == '/') {
    program = named;
    if (is_executable(program)) return program;
  } else {
    for (const auto& folder : folders()) {
      program = (folder / name).string();
      if (is_executable(program)) return program;
    }
  }
  return Error{.code = ErrorCode::not_found,
               .message = fmt::format("start {}: {} is not there", name, program),
               .hint = fmt::format("`make install` installs it; {} names it elsewhere", variable)};
}

}  // namespace vmsight
