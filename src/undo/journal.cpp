#include "undo/journal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace vmsight {
namespace {

using nlohmann::json;

constexpr std::size_t max_record = 1u << 20;  // of a thousand probes: some 100 KB
constexpr std::size_t max_records = 1000;

/// Whoever could write there could make us change VMs.
Result<void> check_ours(int directory, const std::string& path) {
  struct stat info {};
  if (::fstat(directory, &info) != 0) return os_error(errno, "look at " + path);
  if (info.st_uid == ::geteuid() && (info.st_mode & 077) == 0) return {};
  return Error{.code = ErrorCode::permission,
               .message = fmt::format("use {}: others may write or look there", path),
               .hint = fmt::format("remove it, or chown it to you and chmod 700 {}", path)};
}

Result<UniqueFd> open_directory(const std::string& path) {
  UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory) return os_error(errno, "open " + path);
  VMSIGHT_TRY_VOID(check_ours(directory.get(), path));
  return directory;
}

std::string read_small(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) return "";
  std::string text(max_record, '\0');
  const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

json to_json(const ProcessId& id) { return {{"pid", id.pid}, {"start_time", id.start_time}}; }

std::optional<ProcessId> parse_id(const json& record, const char* name) {
  const json id = record.value(name, json());
  if (!id.is_object()) return std::nullopt;
  const json pid = id.value("pid", json());
  const json start = id.value("start_time", json());
  if (!pid.is_number_unsigned() || !start.is_number_unsigned()) return std::nullopt;
  if (pid.get<std::uint64_t>() > 1u << 30) return std::nullopt;  // Linux: at most 2^22
  return ProcessId{pid.get<pid_t>(), start.get<std::uint64_t>()};
}

}  // namespace

std::string journal_directory() {
  if (::geteuid() == 0) return "/run/vmsight";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return runtime != nullptr && runtime[0] == '/' ? std::string(runtime) + "/vmsight" : "";
}

Result<std::string> make_journal_directory() {
  const std::string path = journal_directory();
  if (path.empty()) {
    return Error{.code = ErrorCode::permission,
                 .message = "keep a record of changes to the VM: there is no runtime directory",
                 .hint = "set XDG_RUNTIME_DIR to a directory of yours"};
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return os_error(errno, "make " + path);
  VMSIGHT_TRY(const UniqueFd directory, open_directory(path));
  return path;
}

std::string format_record(const Record& record) {
  return json{{"version", 1},
              {"vm", to_json(record.vm)},
              {"author", to_json(record.author)},
              {"guard", to_json(record.guard)},
              {"kind", record.change.kind},
              {"what", record.change.what},
              {"outlives_vm", record.change.outlives_vm},
              {"on_purpose", record.change.on_purpose},
              {"payload", record.change.payload}}
      .dump();
}

std::optional<Record> parse_record(std::string_view text) {
  const json all = json::parse(text, nullptr, false);
  if (!all.is_object() || all.value("version", json()) != 1) return std::nullopt;
  const auto vm = parse_id(all, "vm");
  const auto author = parse_id(all, "author");
  const auto guard = parse_id(all, "guard");
  const json kind = all.value("kind", json());
  const json what = all.value("what", json());
  if (!vm || !author || !guard || !kind.is_string()) return std::nullopt;
  return Record{.vm = *vm,
                .author = *author,
                .guard = *guard,
                .change = {.kind = kind.get<std::string>(),
                           .payload = all.value("payload", json::object()),
                           .what = what.is_string() ? what.get<std::string>() : "",
                           .outlives_vm = all.value("outlives_vm", json()) == true,
                           .on_purpose = all.value("on_purpose", json()) == true}};
}

Change make_change(const ChangeKind& kind, json payload) {
  return {.kind = std::string(kind.name),
          .payload = std::move(payload),
          .what = std::string(kind.what),
          .outlives_vm = kind.outlives_vm,
          .on_purpose = kind.on_purpose};
}

Result<JournalEntry> JournalEntry::prepare(const ProcessId& vm, Change change,
                                           const ProcessId& author) {
  static std::atomic<unsigned> number = 0;
  JournalEntry entry;
  VMSIGHT_TRY(const std::string directory, make_journal_directory());
  VMSIGHT_TRY(const ProcessId guard, identify(::getpid()));
  // The start time makes it unlike a name that an earlier process with our PID left.
  entry.record_ = {.path = fmt::format("{}/{}-{}-{}-{}.json", directory, vm.pid, guard.pid,
                                       guard.start_time, number++),
                   .vm = vm,
                   .author = author,
                   .guard = guard,
                   .change = std::move(change)};
  return entry;
}

Result<void> JournalEntry::write() {
  if (is_written_) return {};
  const std::string& path = record_.path;
  const std::string directory = path.substr(0, path.rfind('/'));
  const std::string text = format_record(record_);
  // Without a name until it is whole.
  const UniqueFd file(::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  if (!file) return os_error(errno, "write " + path);
  errno = ENOSPC;
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return os_error(errno, "write " + path);
  }
  const std::string source = fmt::format("/proc/self/fd/{}", file.get());
  if (::linkat(AT_FDCWD, source.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return os_error(errno, "write " + path);
  }
  is_written_ = true;
  return {};
}

Result<void> JournalEntry::remove() {
  if (!is_written_) return {};
  VMSIGHT_TRY_VOID(remove_record(record_.path));
  is_written_ = false;
  return {};
}

Result<void> JournalEntry::remove_record(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return os_error(errno, "remove " + path);
}

std::vector<Record> read_journal() {
  const std::string directory = journal_directory();
  std::vector<Record> records;
  if (directory.empty() || !open_directory(directory)) return records;
  std::error_code failed;
  for (std::filesystem::directory_iterator it(directory, failed), end;
       !failed && it != end && records.size() < max_records; it.increment(failed)) {
    auto record = parse_record(read_small(it->path().string()));
    if (!record) continue;
    record->path = it->path().string();
    records.push_back(*std::move(record));
  }
  return records;
}

}  // namespace vmsight
