#include "detect/rule_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <algorithm>
#include <array>
#include <cerrno>

#include "base/os.h"
#include "detect/rule_loader.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

Error unreadable(const std::string& path, std::string_view why) {
  return {.code = ErrorCode::usage, .message = fmt::format("read {}: {}", escape_bytes(path), why)};
}

Error unreadable(const std::string& path, int error) {
  return os_error(error, fmt::format("read {}", escape_bytes(path)));
}

Result<std::string> read_rest(const UniqueFd& fd, const std::string& path) {
  std::string text;
  std::array<char, 65536> buffer;
  while (text.size() <= RuleFileBounds::file_size) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unreadable(path, errno);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return unreadable(path, fmt::format("it has more than {} bytes", RuleFileBounds::file_size));
}

/// A pipe or a device is not waited for.
Result<std::string> read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return unreadable(path, errno);
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return unreadable(path, errno);
  if (!S_ISREG(about.st_mode)) return unreadable(path, "it is neither a file nor a directory");
  return read_rest(fd, path);
}

bool is_rule_file(std::string_view name) {
  return !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml"));
}

Result<std::vector<std::string>> files_of(const std::string& path) {
  const Directory directory = list_directory(path);
  if (directory == nullptr && errno == ENOTDIR) return std::vector{path};
  if (directory == nullptr) return unreadable(path, errno);
  std::vector<std::string> files;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (is_rule_file(entry->d_name)) files.push_back(path + "/" + entry->d_name);
    if (files.size() > RuleFileBounds::files) {
      return unreadable(path, fmt::format("it has more than {} files", RuleFileBounds::files));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

void load_file(const std::string& path, RuleLoader& loader) {
  auto text = read_file(path);
  if (text) {
    loader.add_text(path, *text);
  } else {
    loader.add_error(std::move(text).error());
  }
}

}  // namespace

RuleSet load_rules(const std::vector<std::string>& paths) {
  RuleLoader loader;
  for (const std::string& path : paths) {
    auto files = files_of(path);
    if (!files) {
      loader.add_error(std::move(files).error());
      continue;
    }
    for (const std::string& file : *files) load_file(file, loader);
  }
  return loader.finish();
}

RuleSet load_rule_texts(const std::vector<RuleText>& texts) {
  RuleLoader loader;
  for (const auto& [name, text] : texts) {
    if (text.size() <= RuleFileBounds::file_size) {
      loader.add_text(name, text);
    } else {
      loader.add_error(
          unreadable(name, fmt::format("it has more than {} bytes", RuleFileBounds::file_size)));
    }
  }
  return loader.finish();
}

}  // namespace vmsight::detect
