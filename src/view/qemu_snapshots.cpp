// Snapshots that QEMU itself takes, each into a file of ours that has no name:
//
//   halt-snap:dump         dump-guest-memory, an ELF core; QEMU stops the guest for it
//   halt-snap:pmemsave     stop, pmemsave of each RAM range, cont
//   halt-snap:migrate      stop, migrate to a file, cont
//   live-snap:mapped-ram   migrate to a file while the guest runs, which stops at the end; cont
//   live-snap:background   migrate with the guest's pages write-protected at the start
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "image/migration_stream.h"
#include "qemu/migration.h"
#include "qemu/run_state.h"
#include "view/file_view.h"
#include "view/snapshot_memory.h"
#include "view/techniques_of_qemu.h"
#include "vmsight/halt.h"

namespace vmsight {
namespace {

using nlohmann::json;

/// Devices, video memory and headers beside the RAM.
constexpr std::uint64_t slack = 64u << 20;

/// What all of them need.
class QemuSnapshotter : public Snapshotter {
 public:
  QemuSnapshotter(const Vm& vm, std::shared_ptr<MonitorSession> session, SaveFiles files)
      : vm_(vm), session_(std::move(session)), files_(std::move(files)) {}

 protected:
  std::uint64_t ram_bytes() const { return vm_.ram().total_bytes(); }

  Result<bool> is_running() {
    VMSIGHT_TRY(const std::string status, session_->with_client(&ask_run_state));
    return status == "running";
  }

  MappedMemory::Parts parts() const { return {.technique = "file", .ram = vm_.ram()}; }

  /// QEMU that ended explains a failure better than the failure does; so does a full disk.
  Error explain(Error error) const {
    error = explain_failure(vm_, std::move(error));
    if (error.message.find("space") != std::string::npos) {
      error.hint = fmt::format("set TMPDIR to a directory on a larger file system than {}",
                               temporary_directory());
    }
    return error;
  }

  const Vm& vm_;
  std::shared_ptr<MonitorSession> session_;
  SaveFiles files_;
};

Result<Snapshot> snapshot_of(MappedMemory::Parts parts, std::uint64_t pause_ns,
                             std::uint64_t bytes) {
  Snapshot snapshot{.pause_ns = pause_ns, .bytes = bytes};
  VMSIGHT_TRY(snapshot.memory, MappedMemory::make(std::move(parts)));
  return snapshot;
}

class Dump final : public QemuSnapshotter {
 public:
  using QemuSnapshotter::QemuSnapshotter;

  Result<Snapshot> take() override {
    VMSIGHT_TRY(const SaveFile file, files_.on_disk(ram_bytes() + slack));
    static_cast<void>(session_->take_events());
    // QEMU stops the guest and lets it run again, whatever becomes of us.
    auto dumped = session_->execute(
        {"dump-guest-memory", {{"paging", false}, {"protocol", "file:" + file.path()}}},
        save_patience(ram_bytes()));
    if (!dumped) return explain(std::move(dumped).error());
    const std::uint64_t pause = pause_of(session_->take_events());
    VMSIGHT_TRY(const Image image, open_image(file.own_path()));
    MappedMemory::Parts all = parts();
    VMSIGHT_TRY_VOID(add_image(all, image));
    return snapshot_of(std::move(all), pause, ram_bytes());
  }
};

class Saved final : public QemuSnapshotter {
 public:
  Saved(const Vm& vm, std::shared_ptr<MonitorSession> session, SaveFiles files,
        std::unique_ptr<Halter> halter)
      : QemuSnapshotter(vm, std::move(session), std::move(files)), halter_(std::move(halter)) {}

  Result<Snapshot> take() override {
    VMSIGHT_TRY(const std::vector<SaveFile> files, make_files());
    VMSIGHT_TRY(const std::uint64_t pause, save(files));
    MappedMemory::Parts all = parts();
    for (std::size_t i = 0; i < files.size(); ++i) {
      VMSIGHT_TRY_VOID(add(all, vm_.ram().ranges()[i], files[i]));
    }
    return snapshot_of(std::move(all), pause, ram_bytes());
  }

 private:
  /// One for each range, with space for all of them.
  Result<std::vector<SaveFile>> make_files() {
    std::vector<SaveFile> files;
    while (files.size() < vm_.ram().ranges().size()) {
      VMSIGHT_TRY(SaveFile file, files_.on_disk(ram_bytes()));
      files.push_back(std::move(file));
    }
    return files;
  }

  /// How long the guest stood for it.
  Result<std::uint64_t> save(const std::vector<SaveFile>& files) {
    std::vector<QmpClient::Command> commands;
    for (std::size_t i = 0; i < files.size(); ++i) {
      const RamRange& range = vm_.ram().ranges()[i];
      commands.push_back(save_command(range.start, range.size, files[i]));
    }
    VMSIGHT_TRY(Paused paused, halter_->halt());
    auto saved = session_->execute_all(commands, save_patience(ram_bytes()));
    VMSIGHT_TRY(const std::uint64_t pause, paused.resume());
    if (!saved) return explain(std::move(saved).error());
    return pause;
  }

  /// QEMU 7.2 does not notice that the last bytes found no space.
  Result<void> add(MappedMemory::Parts& all, const RamRange& range, const SaveFile& file) const {
    struct stat st {};
    if (::fstat(file.fd(), &st) != 0) return os_error(errno, "look at a snapshot");
    if (static_cast<std::uint64_t>(st.st_size) != range.size) {
      return explain(os_error(ENOSPC, "save guest memory in " + temporary_directory()));
    }
    Image image{.path = file.own_path(), .format = "raw"};
    image.segments.push_back({range.start, range.size, 0, range.size});
    return add_image(all, image);
  }

  std::unique_ptr<Halter> halter_;
};

class Migrated final : public QemuSnapshotter {
 public:
  Migrated(const Vm& vm, std::shared_ptr<MonitorSession> session, SaveFiles files,
           Migration migration)
      : QemuSnapshotter(vm, std::move(session), std::move(files)),
        migration_(std::move(migration)) {}

  Result<Snapshot> take() override {
    const auto running = is_running();
    if (!running) return explain(running.error());
    if (!*running) {
      // Migration would end its pause, or take its disks from it until somebody resumes it.
      return Error{.code = ErrorCode::unsupported,
                   .message = "migrate to a file: the guest is paused",
                   .hint = "it stands still anyway: any live technique reads it as it is"};
    }
    VMSIGHT_TRY(const SaveFile file, files_.on_disk(ram_bytes() + slack));
    static_cast<void>(session_->take_events());
    VMSIGHT_TRY_VOID(migrate(file));
    return read(file, pause_of(session_->take_events()));
  }

 private:
  Result<void> migrate(const SaveFile& file) {
    auto done = migration_.run(file, ram_bytes());
    if (!done) return explain(std::move(done).error());
    return {};
  }

  std::vector<WantedBlock> wanted() const {
    std::vector<WantedBlock> blocks;
    for (const RamRange& range : vm_.ram().ranges()) {
      auto block = std::find_if(blocks.begin(), blocks.end(),
                                [&](const WantedBlock& b) { return b.name == range.block; });
      if (block == blocks.end()) block = blocks.insert(block, {range.block, 0});
      block->size = std::max(block->size, range.block_offset + range.size);
    }
    return blocks;
  }

  Result<Snapshot> read(const SaveFile& file, std::uint64_t pause_ns) const {
    struct stat st {};
    if (::fstat(file.fd(), &st) != 0) return os_error(errno, "look at a snapshot");
    const auto size = static_cast<std::uint64_t>(st.st_size);
    VMSIGHT_TRY(GuardedMapping mapping, GuardedMapping::map(file.fd(), 0, size));
    const std::vector<WantedBlock> names = wanted();
    VMSIGHT_TRY(const auto blocks, parse_migration_stream(mapping.bytes(), names));
    Image image{.path = file.own_path(), .format = "migration"};
    for (const RamRange& range : vm_.ram().ranges()) {
      const auto name = std::find_if(names.begin(), names.end(),
                                     [&](const WantedBlock& b) { return b.name == range.block; });
      const StreamBlock& block = blocks[static_cast<std::size_t>(name - names.begin())];
      if (!block.found) {
        return Error{.code = ErrorCode::bad_data,
                     .message = "read migration file: it lacks RAM block " + range.block};
      }
      add_segments(image, range, block, size);
    }
    MappedMemory::Parts all = parts();
    VMSIGHT_TRY_VOID(add_image(all, image));
    return snapshot_of(std::move(all), pause_ns, static_cast<std::uint64_t>(st.st_blocks) * 512);
  }

  static void add_segments(Image& image, const RamRange& range, const StreamBlock& block,
                           std::uint64_t file_size) {
    if (block.mapped) {
      const std::uint64_t at = block.pages_at + range.block_offset;
      const std::uint64_t held = file_size > at ? std::min(range.size, file_size - at) : 0;
      image.segments.push_back({range.start, range.size, at, held, ImageRest::zeros});
      return;
    }
    const std::uint64_t first = range.block_offset >> page_shift;
    for (std::uint64_t i = 0; i < range.size >> page_shift; ++i) {
      const std::uint64_t at = block.pages[first + i];
      const GuestPhys start = range.start + (i << page_shift);
      auto& segments = image.segments;
      const bool after_zeros = !segments.empty() && segments.back().file_size == 0 &&
                               segments.back().start + segments.back().size == start;
      if (at == 0 && after_zeros)
        segments.back().size += page_size;
      else
        segments.push_back({start, page_size, at, at == 0 ? 0 : page_size, ImageRest::zeros});
    }
  }

  Migration migration_;
};

/// What is read before the first snapshot: the process's memory if we may, else the monitor.
Result<std::unique_ptr<GuestMemory>> open_live(const Vm& vm) {
  auto live = open_live_read(vm);
  return live ? std::move(live) : open_monitor_pmemsave(vm);
}

struct Common {
  std::shared_ptr<MonitorSession> session;
  std::optional<SaveFiles> files;
};

Result<Common> open_common(const Vm& vm) {
  VMSIGHT_TRY_VOID(vm.check_alive());
  Common common;
  VMSIGHT_TRY(common.session, MonitorSession::of(vm.info()));
  VMSIGHT_TRY(SaveFiles files, SaveFiles::make(common.session, vm));
  common.files = std::move(files);
  return common;
}

Result<std::unique_ptr<GuestMemory>> snapshots_of(const Vm& vm, std::string_view technique,
                                                  Taken taken,
                                                  std::unique_ptr<Snapshotter> snapshotter) {
  VMSIGHT_TRY(std::unique_ptr<GuestMemory> live, open_live(vm));
  return std::unique_ptr<GuestMemory>(
      std::make_unique<SnapshotMemory>(technique, taken, std::move(live), std::move(snapshotter)));
}

Result<std::unique_ptr<GuestMemory>> open_migrated(const Vm& vm, std::string_view technique,
                                                   MigrationKind kind,
                                                   std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(Common common, open_common(vm));
  if (vm.ram_source() != "monitor") {
    return Error{.code = ErrorCode::unsupported,
                 .message = "migrate to a file: the names of the RAM blocks are unknown"};
  }
  VMSIGHT_TRY(Migration migration, Migration::open(vm, common.session, kind, max_halt));
  const Taken taken = kind == MigrationKind::stopped ? Taken::while_halted : Taken::while_running;
  return snapshots_of(vm, technique, taken,
                      std::make_unique<Migrated>(vm, common.session, *std::move(common.files),
                                                 std::move(migration)));
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_halt_snap_dump(const Vm& vm) {
  VMSIGHT_TRY(Common common, open_common(vm));
  return snapshots_of(vm, "halt-snap:dump", Taken::while_halted,
                      std::make_unique<Dump>(vm, common.session, *std::move(common.files)));
}

Result<std::unique_ptr<GuestMemory>> open_halt_snap_pmemsave(const Vm& vm,
                                                             std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(Common common, open_common(vm));
  VMSIGHT_TRY(std::unique_ptr<Halter> halter, open_stop_halter(vm, max_halt));
  return snapshots_of(
      vm, "halt-snap:pmemsave", Taken::while_halted,
      std::make_unique<Saved>(vm, common.session, *std::move(common.files), std::move(halter)));
}

Result<std::unique_ptr<GuestMemory>> open_halt_snap_migrate(const Vm& vm,
                                                            std::chrono::milliseconds max_halt) {
  return open_migrated(vm, "halt-snap:migrate", MigrationKind::stopped, max_halt);
}

Result<std::unique_ptr<GuestMemory>> open_live_snap_mapped_ram(const Vm& vm,
                                                               std::chrono::milliseconds max_halt) {
  return open_migrated(vm, "live-snap:mapped-ram", MigrationKind::mapped_ram, max_halt);
}

Result<std::unique_ptr<GuestMemory>> open_live_snap_background(const Vm& vm,
                                                               std::chrono::milliseconds max_halt) {
  return open_migrated(vm, "live-snap:background", MigrationKind::background, max_halt);
}

}  // namespace vmsight
