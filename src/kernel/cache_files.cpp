#include "kernel/cache_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include <fmt/format.h>

#include "base/os.h"

namespace vmsight {
namespace {

Error distrusted(std::string what) {
  return {.code = ErrorCode::permission, .message = std::move(what)};
}

/// Whoever can write it can mislead us: only we (or root) may.
Result<void> check_owner(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return os_error(errno, "fstat");
  if (status.st_uid != ::geteuid() && status.st_uid != 0) {
    return distrusted(fmt::format("it belongs to user {}", status.st_uid));
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return distrusted("others may write to it");
  return {};
}

Result<UniqueFd> open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return os_error(errno, "open " + path);
  if (auto ours = check_owner(fd.get()); !ours)
    return distrusted(path + ": " + ours.error().message);
  return fd;
}

Result<std::string> read_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return os_error(errno, "fstat");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || size > CacheFiles::max_file_bytes)
    return distrusted("it is no cache file");
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(fd, text.data() + done, size - done);
    if (got < 0) return os_error(errno, "read");
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  text.resize(done);
  return text;
}

/// The time of a file is when it was last of use; not to the second, to spare the disk.
void mark_used(int fd) {
  constexpr std::time_t often = 3600;
  struct stat status {};
  if (::fstat(fd, &status) == 0 && std::time(nullptr) - status.st_mtime > often) {
    static_cast<void>(::futimens(fd, nullptr));
  }
}

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0) return os_error(errno, "write the kernel cache");
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

struct CacheFile {
  std::filesystem::path path;
  std::filesystem::file_time_type used;
  std::uint64_t size = 0;
};

/// Temporary files of writers that were killed are called so, too.
bool is_of(const std::filesystem::path& path, std::string_view kind) {
  return path.filename().string().find(kind) != std::string::npos;
}

/// All files of ours, the last used first.
std::vector<CacheFile> files_by_use(const std::string& directory) {
  std::vector<CacheFile> files;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    if (!is_of(at->path(), kernel_file) && !is_of(at->path(), place_file)) continue;
    std::error_code unknown;
    CacheFile file{at->path(), at->last_write_time(unknown), 0};
    if (!unknown) file.size = at->file_size(unknown);
    files.push_back(std::move(file));
  }
  std::ranges::sort(files, std::greater{}, &CacheFile::used);
  return files;
}

std::size_t count_of(const std::string& directory, std::string_view kind) {
  std::size_t count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    count += is_of(at->path(), kind);
  }
  return count;
}

Error no_cache_file(std::string_view name) {
  return {.code = ErrorCode::usage,
          .message = fmt::format("no file of the cache is called {}", name)};
}

}  // namespace

bool is_cache_name(std::string_view name) {
  constexpr std::size_t longest = 200;
  const std::size_t stem = name.rfind('.');
  if (stem == name.npos || stem == 0 || name.size() > longest) return false;
  const std::string_view kind = name.substr(stem);
  return (kind == kernel_file || kind == place_file) &&
         name.substr(0, stem).find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz-") ==
             name.npos;
}

std::string CacheDirectory::path_of(std::string_view name) const {
  return fmt::format("{}/{}", path_, name);
}

Result<std::vector<std::string>> CacheDirectory::list(std::string_view prefix,
                                                      std::string_view suffix) {
  std::vector<std::string> names;
  std::error_code error;
  if (!std::filesystem::exists(path_, error)) return names;
  if (const auto directory = open_directory(path_); !directory) return directory.error();
  for (std::filesystem::directory_iterator at(path_, error), end; !error && at != end;
       at.increment(error)) {
    std::string name = at->path().filename();
    if (name.starts_with(prefix) && name.ends_with(suffix) && is_cache_name(name))
      names.push_back(std::move(name));
  }
  return names;
}

/// Only what only we can have written.
Result<std::string> CacheDirectory::read(std::string_view name) {
  if (!is_cache_name(name)) return no_cache_file(name);
  if (const auto directory = open_directory(path_); !directory) return directory.error();
  const UniqueFd fd(::open(path_of(name).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return os_error(errno, "open");
  VMSIGHT_TRY_VOID(check_owner(fd.get()));
  auto text = read_file(fd.get());
  if (text) mark_used(fd.get());
  return text;
}

Result<void> CacheDirectory::make() const {
  std::error_code error;
  const std::filesystem::path path(path_);
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(errno, "create " + path_);
  if (const auto directory = open_directory(path_); !directory) return directory.error();
  return {};
}

Result<void> CacheDirectory::replace(std::string_view name, std::string_view text) {
  if (!is_cache_name(name)) return no_cache_file(name);
  VMSIGHT_TRY_VOID(make());
  const std::string path = path_of(name);
  const std::string temporary = fmt::format("{}.{}", path, ::getpid());
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
  const UniqueFd fd(::open(temporary.c_str(), flags, 0600));
  if (!fd) return os_error(errno, "create " + temporary);
  ScopeExit clean_up([&] { ::unlink(temporary.c_str()); });
  VMSIGHT_TRY_VOID(write_all(fd.get(), text));
  if (::rename(temporary.c_str(), path.c_str()) != 0) return os_error(errno, "rename " + path);
  clean_up.dismiss();
  prune_after(name);
  return {};
}

void CacheDirectory::prune_after(std::string_view name) const {
  // Of places by their names only: one may be written at the end of each program.
  if (name.ends_with(place_file) && count_of(path_, place_file) <= max_files) return;
  std::size_t kept[2] = {};
  std::uint64_t bytes = 0;
  for (const CacheFile& file : files_by_use(path_)) {
    bytes += file.size;
    if (++kept[is_of(file.path, place_file)] <= max_files && bytes <= max_bytes) continue;
    std::error_code error;
    std::filesystem::remove(file.path, error);
  }
}

}  // namespace vmsight
