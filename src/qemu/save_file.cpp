#include "qemu/save_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstdlib>

namespace vmsight {
namespace {

Error no_space(const std::string& directory, std::uint64_t size, std::uint64_t available) {
  constexpr std::uint64_t mib = 1 << 20;
  Error error = os_error(ENOSPC, "save guest memory in " + directory);
  error.message +=
      fmt::format(": {} MiB needed, {} MiB free", (size + mib - 1) / mib, available / mib);
  error.hint = "set TMPDIR to a directory on a larger file system";
  return error;
}

Result<void> check_space(const std::string& directory, std::uint64_t size) {
  struct statvfs fs {};
  if (::statvfs(directory.c_str(), &fs) != 0) return os_error(errno, "look at " + directory);
  const std::uint64_t available = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
  if (available < size) return no_space(directory, size, available);
  return {};
}

/// A file without a name; where the file system knows none, one whose name is gone at once.
Result<UniqueFd> nameless_file(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  if (errno != EOPNOTSUPP && errno != EISDIR) return os_error(errno, "make a file in " + directory);
  std::string path = directory + "/vmsight-XXXXXX";
  fd = UniqueFd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd) return os_error(errno, "make a file in " + directory);
  ::unlink(path.c_str());
  return fd;
}

}  // namespace

SaveFile& SaveFile::operator=(SaveFile&& other) noexcept {
  if (this != &other) {
    release();
    fd_ = std::move(other.fd_);
    path_ = std::move(other.path_);
    session_ = std::move(other.session_);
    set_ = other.set_;
  }
  return *this;
}

void SaveFile::release() {
  if (!session_) return;
  static_cast<void>(session_->execute({"remove-fd", {{"fdset-id", set_}}}));
  session_.reset();
}

std::string SaveFile::own_path() const { return fmt::format("/proc/self/fd/{}", fd_.get()); }

Result<SaveFiles> SaveFiles::make(std::shared_ptr<MonitorSession> session, const Vm& vm) {
  SaveFiles files;
  files.session_ = std::move(session);
  files.owner_ = vm.info().uid;
  if (vm.ram().ranges().empty()) {
    return Error{.code = ErrorCode::unsupported, .message = "save guest RAM: its place is unknown"};
  }
  const GuestPhys start = vm.ram().ranges().front().start;
  if (files.try_saving(start)) return files;
  files.pass_ = true;
  auto passed = files.try_saving(start);
  if (passed) return files;
  return Error{.code = ErrorCode::unsupported,
               .message = "let QEMU write to a file of ours: " + passed.error().message,
               .hint = "run vmsight as the user of the QEMU process, and outside of containers"};
}

Result<void> SaveFiles::try_saving(GuestPhys from) {
  VMSIGHT_TRY(const SaveFile file, in_memory());
  VMSIGHT_TRY(const auto done, session_->execute(save_command(from, 8, file)));
  static_cast<void>(done);
  struct stat st {};
  if (::fstat(file.fd(), &st) == 0 && st.st_size == 8) return {};
  return Error{.code = ErrorCode::unsupported, .message = "QMP pmemsave: nothing arrived"};
}

Result<SaveFile> SaveFiles::in_memory() {
  UniqueFd fd(::memfd_create("vmsight", MFD_CLOEXEC));
  if (!fd) return os_error(errno, "make a memory file");
  return share(std::move(fd));
}

Result<SaveFile> SaveFiles::on_disk(std::uint64_t size) {
  const std::string directory = temporary_directory();
  VMSIGHT_TRY_VOID(check_space(directory, size));
  VMSIGHT_TRY(UniqueFd fd, nameless_file(directory));
  return share(std::move(fd));
}

Result<SaveFile> SaveFiles::share(UniqueFd fd) {
  // QEMU opens the file anew, with its own rights.
  if (::geteuid() == 0 && owner_ != 0 && ::fchown(fd.get(), owner_, static_cast<gid_t>(-1)) != 0) {
    return os_error(errno, "give a file to the user of the QEMU process");
  }
  SaveFile file;
  file.path_ = fmt::format("/proc/{}/fd/{}", ::getpid(), fd.get());
  file.fd_ = std::move(fd);
  if (!pass_) return file;
  MonitorSession::Command command{"add-fd", {{"opaque", "vmsight"}}};
  command.descriptor = file.fd_.get();
  VMSIGHT_TRY(const nlohmann::json added, session_->execute(std::move(command)));
  const auto set = added.find("fdset-id"), theirs = added.find("fd");
  if (set == added.end() || theirs == added.end() || !set->is_number_integer() ||
      !theirs->is_number_integer()) {
    return Error{.code = ErrorCode::bad_data, .message = "QMP add-fd: no descriptor in the answer"};
  }
  file.set_ = set->get<std::int64_t>();
  file.session_ = session_;
  file.path_ = fmt::format("/proc/self/fd/{}", theirs->get<std::int64_t>());
  return file;
}

QmpClient::Command save_command(GuestPhys from, std::uint64_t size, const SaveFile& into) {
  return {"pmemsave", {{"val", from.raw()}, {"size", size}, {"filename", into.path()}}};
}

MonitorSession::Milliseconds save_patience(std::uint64_t bytes) {
  return std::chrono::seconds(30) + std::chrono::milliseconds((bytes >> 20) * 50);
}

std::string temporary_directory() {
  const char* wanted = std::getenv("TMPDIR");
  return wanted != nullptr && wanted[0] == '/' ? wanted : "/var/tmp";
}

}  // namespace vmsight
