#include "detect/integrity/text_baseline.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <span>

#include <fmt/format.h>

#include "base/os.h"
#include "base/text.h"
#include "kernel/bytes.h"

namespace vmsight {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t max_file = 256U << 20;
constexpr std::size_t max_files = 32, max_header = 1024;
constexpr std::string_view baseline_magic = "vmsight-text 1 ";

Error damaged(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("the baseline's file {}", what)};
}

Result<std::string> read_baseline_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == ENOENT) return Error{ErrorCode::not_found, path + " does not exist"};
  if (!fd) return os_error(errno, "open " + path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return os_error(errno, "fstat " + path);
  if (status.st_uid != ::geteuid() && status.st_uid != 0)
    return Error{ErrorCode::permission, fmt::format("{} belongs to user {}", path, status.st_uid)};
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Error{ErrorCode::permission, fmt::format("others may write to {}", path)};
  if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) > max_file)
    return damaged("is none");
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t got = ::read(fd.get(), text.data() + done, text.size() - done);
    if (got < 0) return os_error(errno, "read " + path);
    if (got == 0) return damaged("became shorter");
    done += static_cast<std::size_t>(got);
  }
  return text;
}

/// The rest of the line that begins with `key`; takes the line off the text.
Result<std::string_view> take_line(std::string_view& text, std::string_view key) {
  const std::size_t end = text.substr(0, max_header).find('\n');
  if (end == text.npos || !text.starts_with(key)) return damaged("is damaged");
  const std::string_view value = text.substr(key.size(), end - key.size());
  text.remove_prefix(end + 1);
  return value;
}

Result<std::uint64_t> take_number(std::string_view& text, std::string_view key) {
  VMSIGHT_TRY(const std::string_view line, take_line(text, key));
  const auto number = parse_whole<std::uint64_t>(line, 16);
  if (!number) return damaged("is damaged");
  return *number;
}

Result<TextBaseline> parse_baseline(std::string_view text) {
  if (!text.starts_with(baseline_magic)) return damaged("is no baseline");
  VMSIGHT_TRY(const std::uint64_t sum, take_number(text, baseline_magic));
  if (fnv1a(text) != sum) return damaged("is damaged: its checksum does not match");
  TextBaseline baseline;
  VMSIGHT_TRY(baseline.build_id, take_line(text, "build-id "));
  VMSIGHT_TRY(baseline.variant, take_number(text, "variant "));
  VMSIGHT_TRY(const std::uint64_t base, take_number(text, "base "));
  baseline.base = GuestVirt(base);
  VMSIGHT_TRY(const std::uint64_t size, take_number(text, "size "));
  if (size > max_baseline_text) return damaged("is too large");
  baseline.text.resize(size);
  auto filled = static_cast<uLongf>(size);
  if (::uncompress(reinterpret_cast<Bytef*>(baseline.text.data()), &filled,
                   reinterpret_cast<const Bytef*>(text.data()), text.size()) != Z_OK ||
      filled != size) {
    return damaged("is damaged");
  }
  return baseline;
}

Result<std::string> format_baseline(const TextBaseline& baseline) {
  auto size = ::compressBound(baseline.text.size());
  std::string packed(size, '\0');
  if (::compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
                  reinterpret_cast<const Bytef*>(baseline.text.data()), baseline.text.size(),
                  Z_BEST_SPEED) != Z_OK) {
    return damaged("cannot be packed");
  }
  packed.resize(size);
  const std::string rest =
      fmt::format("build-id {}\nvariant {:x}\nbase {:x}\nsize {:x}\n", baseline.build_id,
                  baseline.variant, baseline.base.raw(), baseline.text.size()) +
      packed;
  return fmt::format("{}{:016x}\n", baseline_magic, fnv1a(rest)) + rest;
}

Result<void> write_baseline_file(const std::string& path, std::string_view text) {
  const UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return os_error(errno, "create " + path);
  while (!text.empty()) {
    const ssize_t put = ::write(fd.get(), text.data(), text.size());
    if (put < 0) return os_error(errno, "write " + path);
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

/// Whether the `Word` at `at` differs by the distance of the move.
template <typename Word>
bool moved(std::span<const std::byte> before, std::span<const std::byte> now, std::size_t at,
           std::uint64_t distance) {
  if (at + sizeof(Word) > now.size()) return false;
  const auto was = load_le<Word>(before, at), is = load_le<Word>(now, at);
  const auto by = static_cast<Word>(distance);
  return is == static_cast<Word>(was + by) || is == static_cast<Word>(was - by);
}

/// The bytes to go on after, if an address that holds the byte at `at` was moved; else 0.
std::size_t end_of_moved(std::span<const std::byte> before, std::span<const std::byte> now,
                         std::size_t at, std::uint64_t distance) {
  if (distance == 0) return 0;
  // Kernels are moved by multiples of 2 MiB: the lowest two bytes of an address stay.
  for (const std::size_t back : {2U, 3U}) {
    if (at < back) continue;
    if (moved<std::uint32_t>(before, now, at - back, distance)) return at - back + 4;
    if (moved<std::uint64_t>(before, now, at - back, distance)) return at - back + 8;
  }
  return 0;
}

}  // namespace

std::string baseline_path(const std::string& directory, const TextBaseline& of,
                          std::string_view suffix) {
  return fmt::format("{}/{}-{:016x}{}", directory, of.build_id, of.variant, suffix);
}

bool is_baseline_path(const std::string& directory, std::string_view path) {
  if (directory.empty() || !path.starts_with(directory + "/")) return false;
  path.remove_prefix(directory.size() + 1);
  if (!path.ends_with(text_suffix) && !path.ends_with(modules_suffix)) return false;
  path.remove_suffix(path.ends_with(text_suffix) ? text_suffix.size() : modules_suffix.size());
  return path.find_first_not_of("0123456789abcdef-") == path.npos;
}

namespace {

class OwnBaselineFiles final : public BaselineFiles {
 public:
  Result<std::string> read(const std::string& path) override { return read_baseline_file(path); }

  Result<void> replace(const std::string& path, std::string_view text) override {
    std::error_code error;
    const fs::path folder = fs::path(path).parent_path();
    if (!folder.empty()) fs::create_directories(folder, error);
    const std::string temporary = fmt::format("{}.{}.new", path, ::getpid());
    if (auto done = write_baseline_file(temporary, text); !done) {
      ::unlink(temporary.c_str());
      return done;
    }
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      const int failed = errno;
      ::unlink(temporary.c_str());
      return os_error(failed, "rename " + temporary);
    }
    return {};
  }

  void prune(const std::string& directory, std::string_view suffix) override {
    std::vector<std::pair<fs::file_time_type, fs::path>> files;
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end;
         at.increment(error)) {
      std::error_code unknown;
      if (at->path().extension() == suffix)
        files.emplace_back(at->last_write_time(unknown), at->path());
    }
    std::ranges::sort(files, std::greater{});
    for (std::size_t i = max_files; i < files.size(); ++i) fs::remove(files[i].second, error);
  }
};

}  // namespace

std::shared_ptr<BaselineFiles> own_baseline_files() { return std::make_shared<OwnBaselineFiles>(); }

Result<TextBaseline> load_baseline(BaselineFiles& files, const std::string& path) {
  VMSIGHT_TRY(const std::string text, files.read(path));
  return parse_baseline(text);
}

Result<void> save_baseline(BaselineFiles& files, const std::string& path,
                           const TextBaseline& baseline) {
  VMSIGHT_TRY(const std::string text, format_baseline(baseline));
  return files.replace(path, text);
}

std::vector<TextChange> compare_text(const TextBaseline& before, const TextBaseline& now,
                                     std::size_t limit) {
  std::vector<TextChange> changes;
  const std::size_t size = std::min(before.text.size(), now.text.size());
  const std::span was(before.text.data(), size), is(now.text.data(), size);
  const std::uint64_t distance = now.base - before.base;
  for (std::size_t at = 0; at < size && changes.size() < limit;) {
    if (at % 64 == 0 && at + 64 <= size && std::memcmp(&was[at], &is[at], 64) == 0) {
      at += 64;
    } else if (was[at] == is[at]) {
      ++at;
    } else if (const std::size_t next = end_of_moved(was, is, at, distance); next > at) {
      at = next;
    } else {
      const bool joins = !changes.empty() && changes.back().offset + changes.back().size == at;
      if (joins)
        ++changes.back().size;
      else
        changes.push_back({at, 1});
      ++at;
    }
  }
  return changes;
}

}  // namespace vmsight
