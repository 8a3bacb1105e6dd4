#include "host/command_line.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/units.h"
#include "host/option_list.h"

namespace vmsight {
namespace {

constexpr std::uint64_t default_memory = 128 * mebibyte;  // QEMU: -m "default: 128 MiB"

/// Options of qemu-system-x86_64 (5.2 to 11) that take no argument. Every other one takes one,
/// which may itself begin with '-' (-append "-m 5").
constexpr std::array flags = {"h",
                              "help",
                              "version",
                              "nodefaults",
                              "nographic",
                              "enable-kvm",
                              "snapshot",
                              "S",
                              "s",
                              "no-reboot",
                              "no-shutdown",
                              "no-acpi",
                              "no-hpet",
                              "no-fd-bootchk",
                              "daemonize",
                              "win2k-hack",
                              "rtc-td-hack",
                              "full-screen",
                              "alt-grab",
                              "ctrl-grab",
                              "no-quit",
                              "singlestep",
                              "no-user-config",
                              "preconfig",
                              "mem-prealloc",
                              "usb",
                              "enable-fips",
                              "sdl",
                              "curses",
                              "enable-sync-profile",
                              "only-migratable",
                              "xen-attach",
                              "xen-domid-restrict",
                              "old-param",
                              "semihosting",
                              "no-kvm",
                              "portrait",
                              "no-frame",
                              "no-tdf"};

bool is_flag(std::string_view option) {
  return std::find(flags.begin(), flags.end(), option) != flags.end();
}

std::optional<Accelerator> accelerator_named(std::string_view name) {
  if (name == "kvm") return Accelerator::kvm;
  if (name == "tcg") return Accelerator::tcg;
  return std::nullopt;
}

struct Chardev {
  std::string socket_path;  // of a listening unix socket, else ""
  std::string backend = "";
  std::optional<std::uint64_t> fd = std::nullopt;  // of a listening socket
};

struct NumaNode {
  std::uint64_t id = 0;
  std::string backend;
};

/// Collects the options in one pass; what refers to another option by id is resolved at the end,
/// since the order on the command line is free.
class Parser {
 public:
  void option(std::string_view name, const std::string& value);
  Result<CommandLine> finish();

 private:
  void machine(const OptionList& options);
  void accelerators(std::string_view colon_separated);
  void memory(const OptionList& options);
  void smp(const OptionList& options);
  void numa(const OptionList& options);
  void object(const OptionList& options);
  void device(const OptionList& options);
  void chardev(const OptionList& options);
  void monitor(const OptionList& options);
  void qmp(std::string_view value);
  Result<void> choose_main_memory();
  Result<MemoryBackend> take_backend(const std::string& id);
  MemoryBackend implicit_backend() const;

  CommandLine line_;
  std::optional<std::uint64_t> memory_bytes_;
  std::string memory_backend_;  // -machine memory-backend=
  std::string memory_path_;     // -mem-path
  std::vector<NumaNode> nodes_;
  std::map<std::string, Chardev, std::less<>> chardevs_;
  std::vector<std::string> qmp_chardevs_;
};

std::string unix_listener(const OptionList& options) {
  // "server" alone is the spelling before 6.0; -chardev implies a client without it.
  return options.is_on("server") ? std::string(options.get("path")) : "";
}

void Parser::option(std::string_view name, const std::string& value) {
  struct Handler {
    std::string_view name, implied_key;
    void (Parser::*handle)(const OptionList&);
  };
  static constexpr std::array<Handler, 9> handlers = {{
      {"machine", "type", &Parser::machine},
      {"M", "type", &Parser::machine},
      {"m", "size", &Parser::memory},
      {"smp", "cpus", &Parser::smp},
      {"numa", "type", &Parser::numa},
      {"object", "qom-type", &Parser::object},
      {"device", "driver", &Parser::device},
      {"chardev", "backend", &Parser::chardev},
      {"mon", "chardev", &Parser::monitor},
  }};
  if (name == "enable-kvm") line_.accelerators.push_back(Accelerator::kvm);
  if (name == "uuid") line_.uuid = value;
  if (name == "mem-path") memory_path_ = value;
  if (name == "qmp" || name == "qmp-pretty") qmp(value);
  if (name == "accel" || name == "name") {
    auto options = OptionList::parse(value, name == "accel" ? "accel" : "guest");
    if (!options) return;
    if (name == "name") line_.name = options->get("guest");
    if (name == "accel") accelerators(options->get("accel"));
  }
  for (const Handler& handler : handlers) {
    if (handler.name != name) continue;
    if (auto options = OptionList::parse(value, handler.implied_key)) {
      (this->*handler.handle)(*options);
    }
  }
}

void Parser::machine(const OptionList& options) {
  if (const auto type = options.find("type")) line_.machine = *type;
  if (const auto id = options.find("memory-backend")) memory_backend_ = *id;
  if (const auto below = options.size("max-ram-below-4g")) line_.max_ram_below_4g = below;
  if (const auto accel = options.find("accel")) accelerators(*accel);
  if (const auto cpus = options.number("smp.cpus")) line_.vcpus = static_cast<unsigned>(*cpus);
  if (const auto size = options.size("memory.size")) memory_bytes_ = size;
  if (const auto size = options.size("memory.max-size")) line_.maximum_memory_bytes = *size;
}

void Parser::accelerators(std::string_view names) {
  while (!names.empty()) {
    const auto colon = std::min(names.find(':'), names.size());
    if (const auto found = accelerator_named(names.substr(0, colon))) {
      line_.accelerators.push_back(*found);
    }
    names.remove_prefix(std::min(colon + 1, names.size()));
  }
}

void Parser::memory(const OptionList& options) {
  if (const auto size = options.size("size", mebibyte)) {
    constexpr std::uint64_t rounding = 8192;  // QEMU rounds -m up to 8 KiB
    memory_bytes_ = (*size + rounding - 1) / rounding * rounding;
  }
  if (const auto size = options.size("maxmem", mebibyte)) line_.maximum_memory_bytes = *size;
}

void Parser::smp(const OptionList& options) {
  constexpr std::uint64_t max_vcpus = 65536;
  std::uint64_t product = 1;
  for (const char* level :
       {"drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"}) {
    product = std::min(max_vcpus, product * options.number(level).value_or(1));
  }
  // Without cpus= all of maxcpus are present; without that, the whole topology is.
  const std::uint64_t count =
      options.number("cpus").value_or(options.number("maxcpus").value_or(product));
  line_.vcpus = static_cast<unsigned>(std::clamp<std::uint64_t>(count, 1, max_vcpus));
}

void Parser::numa(const OptionList& options) {
  if (options.get("type") != "node") return;
  const std::uint64_t id = options.number("nodeid").value_or(nodes_.size());
  nodes_.push_back({id, std::string(options.get("memdev"))});
}

void Parser::object(const OptionList& options) {
  constexpr std::string_view prefix = "memory-backend-";
  const std::string_view type = options.get("qom-type");
  if (!type.starts_with(prefix)) {
    if (type == "secret" && options.get("id") == "masterKey0") line_.libvirt = true;
    return;
  }
  const std::string_view kind = type.substr(prefix.size());
  MemoryBackend backend;
  backend.kind = kind == "ram"     ? BackendKind::ram
                 : kind == "memfd" ? BackendKind::memfd
                 : kind == "file"  ? BackendKind::file
                 : kind == "shm"   ? BackendKind::shm
                                   : BackendKind::other;
  backend.id = options.get("id");
  backend.size = options.size("size").value_or(0);
  const bool shared_by_default =
      backend.kind == BackendKind::memfd || backend.kind == BackendKind::shm;
  backend.share = options.is_on("share", shared_by_default);
  backend.path = options.get("mem-path");
  backend.offset = options.size("offset").value_or(0);
  line_.backends.push_back(std::move(backend));
}

void Parser::device(const OptionList& options) {
  const std::string_view driver = options.get("driver");
  if (driver == "virtserialport") {
    line_.ports.push_back({std::string(options.get("name")), std::string(options.get("chardev"))});
  }
  const bool dimm = driver == "pc-dimm" || driver == "nvdimm";
  if (!dimm && !driver.starts_with("virtio-mem")) return;
  line_.dimms.push_back(
      {std::string(options.get("memdev")), options.number(dimm ? "addr" : "memaddr")});
}

void Parser::chardev(const OptionList& options) {
  const std::string id(options.get("id"));
  Chardev& chardev = chardevs_[id];
  chardev.backend = options.get("backend");
  if (chardev.backend == "socket") {
    chardev.socket_path = unix_listener(options);
    if (options.is_on("server")) chardev.fd = options.number("fd");
  }
  if (id == "charmonitor") line_.libvirt = true;
}

void Parser::monitor(const OptionList& options) {
  if (options.get("mode") == "control") {
    qmp_chardevs_.emplace_back(options.get("chardev"));
  }
}

void Parser::qmp(std::string_view value) {
  constexpr std::string_view chardev_prefix = "chardev:", unix_prefix = "unix:";
  if (value.starts_with(chardev_prefix)) {
    qmp_chardevs_.emplace_back(value.substr(chardev_prefix.size()));
  } else if (value.starts_with(unix_prefix)) {
    auto options = OptionList::parse(value.substr(unix_prefix.size()), "path");
    if (!options) return;
    if (std::string path = unix_listener(*options); !path.empty()) {
      line_.qmp_sockets.push_back(std::move(path));
    }
  }
}

MemoryBackend Parser::implicit_backend() const {
  MemoryBackend backend;
  backend.id = line_.machine.starts_with("microvm") ? "microvm.ram" : "pc.ram";
  backend.size = line_.memory_bytes;
  if (!memory_path_.empty()) {
    backend.kind = BackendKind::file;
    backend.path = memory_path_;
  }
  return backend;
}

Result<MemoryBackend> Parser::take_backend(const std::string& id) {
  auto& backends = line_.backends;
  const auto found = std::find_if(backends.begin(), backends.end(),
                                  [&](const MemoryBackend& b) { return b.id == id; });
  if (found == backends.end()) {
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("read QEMU command line: no memory backend \"{}\"", id)};
  }
  MemoryBackend taken = std::move(*found);
  backends.erase(found);
  return taken;
}

Result<void> Parser::choose_main_memory() {
  std::stable_sort(nodes_.begin(), nodes_.end(),
                   [](const NumaNode& a, const NumaNode& b) { return a.id < b.id; });
  for (const NumaNode& node : nodes_) {
    if (node.backend.empty()) continue;  // a node without memory, or of the old "mem=" kind
    VMSIGHT_TRY(MemoryBackend backend, take_backend(node.backend));
    line_.main_memory.push_back(std::move(backend));
  }
  if (!line_.main_memory.empty()) return {};
  if (memory_backend_.empty()) {
    line_.main_memory.push_back(implicit_backend());
    return {};
  }
  VMSIGHT_TRY(MemoryBackend backend, take_backend(memory_backend_));
  if (!memory_bytes_) line_.memory_bytes = backend.size;
  line_.main_memory.push_back(std::move(backend));
  return {};
}

Result<CommandLine> Parser::finish() {
  line_.memory_bytes = memory_bytes_.value_or(default_memory);
  VMSIGHT_TRY_VOID(choose_main_memory());
  line_.maximum_memory_bytes = std::max(line_.maximum_memory_bytes, line_.memory_bytes);
  for (const std::string& id : qmp_chardevs_) {
    const auto chardev = chardevs_.find(id);
    if (chardev != chardevs_.end() && !chardev->second.socket_path.empty()) {
      line_.qmp_sockets.push_back(chardev->second.socket_path);
    }
  }
  for (GuestPort& port : line_.ports) {
    const auto chardev = chardevs_.find(port.chardev);
    if (chardev == chardevs_.end()) continue;
    port.backend = chardev->second.backend;
    port.path = chardev->second.socket_path;
    port.fd = chardev->second.fd;
  }
  return std::move(line_);
}

}  // namespace

Result<CommandLine> parse_command_line(std::span<const std::string> arguments) {
  Parser parser;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    std::string_view name = arguments[i];
    if (!name.starts_with('-')) continue;  // a disk image
    name.remove_prefix(name.starts_with("--") ? 2 : 1);
    if (is_flag(name)) {
      parser.option(name, "");
    } else if (i + 1 < arguments.size()) {
      parser.option(name, arguments[++i]);
    }
  }
  return parser.finish();
}

}  // namespace vmsight
