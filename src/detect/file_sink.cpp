// Alarms as lines of a file, a pipe or a descriptor.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <cerrno>

#include "base/os.h"
#include "detect/losses.h"
#include "detect/sink.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

class LineSink : public AlarmSink {
 public:
  LineSink(int fd, std::string name, AlarmFormat format, std::string hostname)
      : fd_(fd), name_(std::move(name)), format_(format), hostname_(std::move(hostname)) {}

  Result<void> deliver(const Alarm& alarm) override {
    // Half a line may be there.
    std::string line = torn_ ? "\n" : "";
    line += format_alarm(alarm, format_, hostname_) + '\n';
    if (auto written = write_all(line); !written) {
      return losses_.lose(std::move(written).error());
    }
    losses_.delivered();
    return {};
  }
  Result<void> flush() override { return {}; }
  std::uint64_t lost() const override { return losses_.count(); }

 protected:
  void set_fd(int fd) {
    fd_ = fd;
    torn_ = false;
  }

 private:
  Result<void> write_all(std::string_view line) {
    bool begun = false;
    while (!line.empty()) {
      const ssize_t written = ::write(fd_, line.data(), line.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        torn_ = torn_ || begun;
        return os_error(written == 0 ? EIO : errno, fmt::format("write an alarm to {}", name_));
      }
      begun = true;
      line.remove_prefix(static_cast<std::size_t>(written));
    }
    torn_ = false;
    return {};
  }

  int fd_;
  std::string name_;
  AlarmFormat format_;
  std::string hostname_;
  Losses losses_;
  bool torn_ = false;
};

Result<UniqueFd> open_to_append(const std::string& path) {
  constexpr int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  UniqueFd fd(::open(path.c_str(), flags, 0600));
  if (fd) return fd;
  const int error = errno;
  Error made = os_error(error, fmt::format("open {} for alarms", escape_bytes(path)));
  if (error == ENXIO) made.hint = "nobody reads from the pipe yet";
  return made;
}

class FileSink final : public LineSink {
 public:
  FileSink(std::string path, UniqueFd fd, AlarmFormat format, std::string hostname)
      : LineSink(fd.get(), escape_bytes(path), format, std::move(hostname)),
        path_(std::move(path)),
        file_(std::move(fd)) {}

  /// On an error the file that is open stays so.
  Result<void> reopen() override {
    VMSIGHT_TRY(UniqueFd fd, open_to_append(path_));
    file_ = std::move(fd);
    set_fd(file_.get());
    return {};
  }

 private:
  std::string path_;
  UniqueFd file_;
};

}  // namespace

Result<std::unique_ptr<AlarmSink>> open_file_sink(std::string path, AlarmFormat format,
                                                  std::string hostname) {
  VMSIGHT_TRY(UniqueFd fd, open_to_append(path));
  return std::unique_ptr<AlarmSink>(
      std::make_unique<FileSink>(std::move(path), std::move(fd), format, std::move(hostname)));
}

std::unique_ptr<AlarmSink> make_descriptor_sink(int fd, AlarmFormat format, std::string hostname) {
  return std::make_unique<LineSink>(fd, fmt::format("descriptor {}", fd), format,
                                    std::move(hostname));
}

}  // namespace vmsight::detect
