#include "vm/libvirt.h"

#include <unistd.h>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "base/os.h"
#include "vm/options.h"

namespace vmsight {
namespace {

std::vector<std::string> state_directories() {
  std::vector<std::string> directories = {"/run/libvirt/qemu/"};
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR")) {
    directories.push_back(std::string(runtime) + "/libvirt/qemu/run/");
  } else {
    directories.push_back("/run/user/" + std::to_string(::getuid()) + "/libvirt/qemu/run/");
  }
  return directories;
}

std::string first_bytes(const std::string& path) {
  constexpr std::size_t enough = 4096;  // domstatus is the first element
  std::ifstream file(path, std::ios::binary);
  std::string text(enough, '\0');
  file.read(text.data(), static_cast<std::streamsize>(enough));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

std::optional<std::uint64_t> pid_in(const std::string& path) {
  const std::string text = first_bytes(path);
  return parse_number(std::string_view(text).substr(0, text.find('\n')));
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
    if (const auto pid = pid_in(stem + ".pid")) return pid;
    if (const auto pid = parse_libvirt_status(first_bytes(stem + ".xml"))) return pid;
  }
  return std::nullopt;
}

std::optional<std::string> libvirt_domain_of(pid_t pid) {
  constexpr std::string_view suffix = ".pid";
  for (const std::string& directory : state_directories()) {
    const Directory files = list_directory(directory);
    if (!files) continue;
    while (const dirent* entry = ::readdir(files.get())) {
      const std::string_view name = entry->d_name;
      if (!name.ends_with(suffix)) continue;
      const auto found = pid_in(directory + std::string(name));
      if (found && *found == static_cast<std::uint64_t>(pid)) {
        return std::string(name.substr(0, name.size() - suffix.size()));
      }
    }
  }
  return std::nullopt;
}

}  // namespace vmsight
