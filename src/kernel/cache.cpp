#include "kernel/cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include <fmt/format.h>

#include "base/os.h"
#include "kernel/bytes.h"

namespace vmsight {
namespace {

constexpr std::size_t max_file_size = 8U << 20;
constexpr std::string_view suffix = ".kernel", place_suffix = ".place";

/// Files are found by the banner, which is known before anything else is.
std::string file_prefix(std::string_view banner) { return fmt::format("{:016x}-", fnv1a(banner)); }

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
  VMSIGHT_TRY_VOID(check_owner(fd.get()));
  return fd;
}

Result<std::string> read_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return os_error(errno, "fstat");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || size > max_file_size) return distrusted("it is no cache file");
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

/// Opens and reads a file that only we can have written.
Result<std::string> read_own_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return os_error(errno, "open");
  VMSIGHT_TRY_VOID(check_owner(fd.get()));
  auto text = read_file(fd.get());
  if (text) mark_used(fd.get());
  return text;
}

struct CacheFile {
  std::filesystem::path path;
  std::filesystem::file_time_type used;
  std::uint64_t size = 0;
};

bool is_place(const std::filesystem::path& path) {
  return path.filename().string().find(place_suffix) != std::string::npos;
}

bool is_kernel(const std::filesystem::path& path) {
  return path.filename().string().find(suffix) != std::string::npos;
}

template <typename Visit>
void each_entry(const std::string& directory, Visit visit) {
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    visit(*at);
  }
}

/// All files of ours, the last used first; temporary ones of writers that were killed, too.
std::vector<CacheFile> files_by_use(const std::string& directory) {
  std::vector<CacheFile> files;
  each_entry(directory, [&](const std::filesystem::directory_entry& entry) {
    if (!is_kernel(entry.path()) && !is_place(entry.path())) return;
    std::error_code unknown;
    CacheFile file{entry.path(), entry.last_write_time(unknown), 0};
    if (!unknown) file.size = entry.file_size(unknown);
    files.push_back(std::move(file));
  });
  std::sort(files.begin(), files.end(),
            [](const CacheFile& a, const CacheFile& b) { return a.used > b.used; });
  return files;
}

/// By their names only: this is asked at the end of each program.
bool has_too_many_places(const std::string& directory) {
  std::size_t places = 0;
  each_entry(directory, [&](const std::filesystem::directory_entry& entry) {
    places += is_place(entry.path());
  });
  return places > KernelCache::max_files;
}

bool is_plain(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         text.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz-") == text.npos;
}

bool is_hex(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == text.npos;
}

}  // namespace

Result<KernelMemo> KernelCache::load(const std::string& file) const {
  VMSIGHT_TRY(const std::string text, read_own_file(file));
  return parse_memo(text);
}

KernelCache::Found KernelCache::find(std::string_view banner) const {
  Found found;
  std::error_code error;
  if (directory_.empty() || !std::filesystem::exists(directory_, error)) return found;
  if (const auto directory = open_directory(directory_); !directory) {
    found.note = "not used: " + directory_ + ": " + directory.error().message;
    return found;
  }
  const std::string prefix = file_prefix(banner);
  for (std::filesystem::directory_iterator at(directory_, error), end; !error && at != end;
       at.increment(error)) {
    const std::string name = at->path().filename();
    if (!name.starts_with(prefix) || !name.ends_with(suffix)) continue;
    auto memo = load(at->path());
    if (memo && memo->banner == banner) {
      found.memos.push_back(*std::move(memo));
    } else {
      found.note = "rebuilt: " + name + ": " +
                   (memo ? std::string("it is of another kernel") : memo.error().message);
    }
  }
  return found;
}

Result<void> KernelCache::make_directory() const {
  std::error_code error;
  const std::filesystem::path path(directory_);
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (::mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(errno, "create " + directory_);
  if (const auto directory = open_directory(directory_); !directory) return directory.error();
  return {};
}

Result<void> KernelCache::save(const KernelMemo& memo) const {
  if (directory_.empty() || !is_hex(memo.build_id)) return {};
  VMSIGHT_TRY_VOID(
      replace(file_prefix(memo.banner) + memo.build_id + std::string(suffix), format_memo(memo)));
  prune();
  return {};
}

std::optional<KernelPlace> KernelCache::find_place(std::string_view vm) const {
  if (directory_.empty() || !is_plain(vm) || !open_directory(directory_)) return std::nullopt;
  const auto text = read_own_file(fmt::format("{}/{}{}", directory_, vm, place_suffix));
  if (!text) return std::nullopt;
  const auto place = parse_place(*text);
  return place ? std::optional(*place) : std::nullopt;
}

Result<void> KernelCache::save_place(std::string_view vm, const KernelPlace& place) const {
  if (directory_.empty() || !is_plain(vm)) return {};
  VMSIGHT_TRY_VOID(replace(fmt::format("{}{}", vm, place_suffix), format_place(place)));
  if (has_too_many_places(directory_)) prune();
  return {};
}

Result<void> KernelCache::replace(const std::string& name, std::string_view text) const {
  VMSIGHT_TRY_VOID(make_directory());
  const std::string path = directory_ + "/" + name;
  const std::string temporary = fmt::format("{}.{}", path, ::getpid());
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
  const UniqueFd fd(::open(temporary.c_str(), flags, 0600));
  if (!fd) return os_error(errno, "create " + temporary);
  ScopeExit clean_up([&] { ::unlink(temporary.c_str()); });
  VMSIGHT_TRY_VOID(write_all(fd.get(), text));
  if (::rename(temporary.c_str(), path.c_str()) != 0) return os_error(errno, "rename " + path);
  clean_up.dismiss();
  return {};
}

void KernelCache::prune() const {
  std::size_t kept[2] = {};  // kernels, places: many VMs do not drive out the kernel that they run
  std::uint64_t bytes = 0;
  for (const CacheFile& file : files_by_use(directory_)) {
    bytes += file.size;
    if (++kept[is_place(file.path)] <= max_files && bytes <= max_bytes) continue;
    std::error_code error;
    std::filesystem::remove(file.path, error);
  }
}

}  // namespace vmsight
