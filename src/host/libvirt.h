// What libvirt's QEMU driver leaves on disk about its running domains; libvirt itself is not
// asked. System domains: /run/libvirt/qemu; a user's: $XDG_RUNTIME_DIR/libvirt/qemu/run. A file of
// another user's is believed about that user's own processes only.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vmsight {

/// The PID of a running domain, from DOMAIN.pid or the status DOMAIN.xml beside it.
std::optional<std::uint64_t> libvirt_pid_of(std::string_view domain);

/// The domain that a QEMU process runs.
std::optional<std::string> libvirt_domain_of(pid_t pid);

/// Whether the process runs a domain of the system's libvirt: root wrote so.
bool is_system_domain(pid_t pid);

/// `<domstatus ... pid='1234'>` of a status file.
std::optional<std::uint64_t> parse_libvirt_status(std::string_view xml);

}  // namespace vmsight
