// What a QEMU argument vector says about the VM. Pure: no file is opened, nothing is asked.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmsight/vm.h"

namespace vmsight {

enum class BackendKind { ram, memfd, file, shm, other };

/// -object memory-backend-*; also the implicit one of -m and -mem-path.
struct MemoryBackend {
  std::string id;
  BackendKind kind = BackendKind::ram;
  std::uint64_t size = 0;
  bool share = false;
  std::string path;          // mem-path: a file, or a directory for unnamed files
  std::uint64_t offset = 0;  // where it begins in the file
};

/// -device pc-dimm, nvdimm or virtio-mem: memory in the area that follows RAM.
struct Dimm {
  std::string backend;                   // id of its MemoryBackend
  std::optional<std::uint64_t> address;  // addr=, else QEMU chose
};

/// -device virtserialport: a line between the guest and a chardev.
struct GuestPort {
  std::string name;     // by which the guest finds it
  std::string chardev;  // id
  std::string backend;  // of the chardev: "socket", "pty", "spicevmc"; "" if it is unknown
  std::string path;     // of a listening unix socket, as written; else ""
  std::optional<std::uint64_t> fd;  // of a listening socket that QEMU inherited (libvirt)
};

struct CommandLine {
  std::string name, uuid;
  std::string machine = "pc";  // QEMU's default for x86
  unsigned vcpus = 1;
  std::uint64_t memory_bytes = 0;
  std::uint64_t maximum_memory_bytes = 0;  // maxmem, memory_bytes if not given
  std::optional<std::uint64_t> max_ram_below_4g;
  std::vector<Accelerator> accelerators;   // in order of preference; empty: QEMU's default
  std::vector<MemoryBackend> main_memory;  // what -m is made of, in guest-physical order
  std::vector<MemoryBackend> backends;     // every other backend, DIMMs' among them
  std::vector<Dimm> dimms;
  std::vector<std::string> qmp_sockets;  // listening unix sockets, as written
  std::vector<GuestPort> ports;
  bool libvirt = false;  // a monitor named as libvirt does
};

/// `arguments` with argv[0]. Options that say nothing about the above are skipped, malformed
/// ones too: QEMU accepted them, so the fault is ours and the rest is still worth having.
/// bad_data if two parts contradict each other (a memory backend that does not exist).
Result<CommandLine> parse_command_line(std::span<const std::string> arguments);

}  // namespace vmsight
