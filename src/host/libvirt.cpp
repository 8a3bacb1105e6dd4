#include "host/libvirt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/os.h"
#include "host/option_list.h"
#include "host/process.h"

namespace vmsight {
namespace {

constexpr std::string_view system_directory = "/run/libvirt/qemu/";
constexpr std::string_view pid_suffix = ".pid";

std::vector<std::string> state_directories() {
  std::vector<std::string> directories = {std::string(system_directory)};
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR")) {
    directories.push_back(std::string(runtime) + "/libvirt/qemu/run/");
  } else {
    directories.push_back("/run/user/" + std::to_string(::getuid()) + "/libvirt/qemu/run/");
  }
  return directories;
}

struct StateFile {
  std::string text;
  uid_t owner = 0;
};

/// The first bytes, without waiting for anything: who made the file may have made a FIFO.
StateFile read_state_file(const std::string& path) {
  StateFile file;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return file;
  constexpr std::size_t enough = 4096;  // domstatus is the first element
  file.owner = status.st_uid;
  file.text.resize(enough);
  const ssize_t got = ::read(fd.get(), file.text.data(), enough);
  file.text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return file;
}

/// What a file says, if its owner may say so: ours, root's, or that of the process it names.
std::optional<std::uint64_t> believed(std::optional<std::uint64_t> pid, uid_t owner) {
  if (!pid || owner == 0 || owner == ::geteuid()) return pid;
  const auto user = process_owner(static_cast<pid_t>(*pid));
  return user && *user == owner ? pid : std::nullopt;
}

std::optional<std::uint64_t> pid_in(const StateFile& file) {
  return parse_number(std::string_view(file.text).substr(0, file.text.find('\n')));
}

/// The name of the domain whose PID file in this directory names the process; "" if none does.
/// `believe` says whether a file counts.
std::string domain_in(const std::string& directory, pid_t pid,
                      const std::function<bool(const StateFile&)>& believe) {
  const Directory files = list_directory(directory);
  while (const dirent* entry = files ? ::readdir(files.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    if (!name.ends_with(pid_suffix)) continue;
    const StateFile file = read_state_file(directory + std::string(name));
    if (pid_in(file) != static_cast<std::uint64_t>(pid) || !believe(file)) continue;
    return std::string(name.substr(0, name.size() - pid_suffix.size()));
  }
  return "";
}

}  // namespace

std::optional<std::uint64_t> parse_libvirt_status(std::string_view xml) {
  const auto start = xml.find("<domstatus ");
  if (start == std::string_view::npos) return std::nullopt;
  const std::string_view element = xml.substr(start, xml.find('>', start) - start);
  constexpr std::string_view key = " pid='";
  const auto at = element.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view value = element.substr(at + key.size());
  return parse_number(value.substr(0, value.find('\'')));
}

std::optional<std::uint64_t> libvirt_pid_of(std::string_view domain) {
  if (domain.empty() || domain.find('/') != std::string_view::npos) return std::nullopt;
  for (const std::string& directory : state_directories()) {
    const std::string stem = directory + std::string(domain);
    const StateFile pid_file = read_state_file(stem + std::string(pid_suffix));
    if (const auto pid = believed(pid_in(pid_file), pid_file.owner)) return pid;
    const StateFile status = read_state_file(stem + ".xml");
    if (const auto pid = believed(parse_libvirt_status(status.text), status.owner)) return pid;
  }
  return std::nullopt;
}

std::optional<std::string> libvirt_domain_of(pid_t pid) {
  const auto believe = [](const StateFile& file) {
    return believed(pid_in(file), file.owner).has_value();
  };
  for (const std::string& directory : state_directories()) {
    std::string name = domain_in(directory, pid, believe);
    if (!name.empty()) return name;
  }
  return std::nullopt;
}

bool is_system_domain(pid_t pid) {
  const auto believe = [](const StateFile& file) { return file.owner == 0; };
  return !domain_in(std::string(system_directory), pid, believe).empty();
}

}  // namespace vmsight
