#include "base/sealed_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <cerrno>

namespace vmsight {

Result<UniqueFd> sealed_file(const char* name, std::string_view bytes) {
  UniqueFd file(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return os_error(errno, "make a memfd");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return os_error(errno, "fill a memfd");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  if (::fcntl(file.get(), F_ADD_SEALS, seals) != 0) return os_error(errno, "seal a memfd");
  return file;
}

}  // namespace vmsight
