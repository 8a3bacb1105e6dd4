// vmsight snapshot VM FILE: guest memory in a file for other tools.
#include <fcntl.h>
#include <sys/stat.h>
#include <cerrno>
#include <cstdio>

#include "base/os.h"
#include "cli/attach.h"
#include "cli/progress.h"
#include "kernel/vmcoreinfo.h"
#include "render/format.h"
#include "render/memory_image.h"

namespace vmsight {
namespace {

/// A file that has its name only when it is complete.
class PendingFile {
 public:
  static Result<PendingFile> create(const std::string& path) {
    PendingFile file;
    file.path_ = path;
    file.partial_ = fmt::format("{}.partial-{}", path, ::getpid());
    file.fd_ = UniqueFd(::open(file.partial_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file.fd_) return os_error(errno, "create " + file.partial_);
    const std::string partial = file.partial_;
    file.remove_ = std::make_unique<ScopeExit>([partial] { ::unlink(partial.c_str()); });
    return file;
  }
  int fd() const { return fd_.get(); }
  /// Gives it its name.
  Result<void> commit() {
    if (::fsync(fd_.get()) != 0) return os_error(errno, "write " + path_);
    if (::rename(partial_.c_str(), path_.c_str()) != 0)
      return os_error(errno, "rename to " + path_);
    remove_->dismiss();
    return {};
  }

 private:
  std::string path_, partial_;
  UniqueFd fd_;
  std::unique_ptr<ScopeExit> remove_;
};

class Snapshot : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("FILE", path_, "where to")->group("Arguments")->required();
    app.add_option("--format", format_, "elf: a core for gdb, crash, vmsight; raw: bytes only")
        ->group(format_group)
        ->type_name("elf|raw")
        ->check(CLI::IsMember({"elf", "raw"}));
    app.add_flag("-f,--force", force_, "overwrite FILE")->group("Files");
  }

  Result<void> run(Session& session) override {
    struct stat info {};
    if (::stat(path_.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
      return usage_error("snapshot: " + path_ + " is not a regular file", "name a new file");
    }
    if (!force_ && ::lstat(path_.c_str(), &info) == 0) {
      return usage_error("snapshot: " + path_ + " exists", "--force overwrites it");
    }
    session.common.wish.copy = true;  // the file is written while the memory is read
    if (format_ == "raw") {
      VMSIGHT_TRY(Guest guest, open_named_memory(session.common));
      VMSIGHT_TRY_VOID(check_complete(guest));
      return in_one_view(*guest.memory, [&] {
        return save(session, guest, [&](int fd, const CopyProgress& progress) {
          return write_raw_image(fd, *guest.memory, progress);
        });
      });
    }
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      VMSIGHT_TRY_VOID(check_complete(guest));
      VMSIGHT_TRY(const CoreDetails details, details_of(guest));
      return in_one_view(*guest.memory, [&] {
        return save(session, guest, [&](int fd, const CopyProgress& progress) {
          return write_elf_core(fd, *guest.memory, details, progress);
        });
      });
    });
  }

 private:
  /// What an image lacks, its copy would show as zeros.
  static Result<void> check_complete(const Guest& guest) {
    if (!guest.image || guest.image->absent_bytes == 0) return {};
    return Error{
        .code = ErrorCode::unsupported,
        .message = fmt::format("snapshot: {} bytes were left out of {}, and would be zeros "
                               "in a copy of it",
                               guest.image->absent_bytes, guest.name),
        .hint = "--absent-is-zero takes them to be that"};
  }

  static Result<CoreDetails> details_of(Guest& guest) {
    CoreDetails details;
    details.direct_map = guest.kernel->page_offset();
    const AddressSpace::Window& image = guest.kernel->space().image();
    details.aliases.push_back(
        {GuestPhys(image.start.raw() - image.delta), image.end - image.start, image.start});
    details.vmcoreinfo = read_vmcoreinfo(*guest.kernel, *guest.memory);
    details.page_table = guest.kernel->space().root();
    if (guest.image) details.registers = guest.image->registers;
    if (guest.vm) {
      if (auto registers = guest.vm->registers()) details.registers = *std::move(registers);
    }
    return details;
  }

  template <typename Write>
  Result<void> save(Session& session, const Guest& guest, Write write) {
    VMSIGHT_TRY(PendingFile file, PendingFile::create(path_));
    {
      Progress progress;
      VMSIGHT_TRY_VOID(write(file.fd(), [&](std::uint64_t done, std::uint64_t total) {
        progress.say(fmt::format("copied {} of {}", byte_size(done), byte_size(total)));
      }));
    }
    VMSIGHT_TRY_VOID(file.commit());
    struct stat info {};
    ::stat(path_.c_str(), &info);
    const auto stored = static_cast<std::uint64_t>(info.st_blocks) * 512;
    if (session.common.json) {
      session.out.print("{}\n", dump({{"schema", "vmsight.snapshot/1"},
                                      {"vm", to_json(summary_of(guest))},
                                      {"file", path_},
                                      {"format", format_},
                                      {"size", info.st_size},
                                      {"stored_bytes", stored}}));
    } else {
      session.out.print("{}: {}, {} on disk\n", path_,
                        byte_size(static_cast<std::uint64_t>(info.st_size)), byte_size(stored));
    }
    if (guest.memory->is_live()) {
      fmt::print(stderr,
                 "vmsight: the guest may have run meanwhile: pages are of different moments\n"
                 "hint: --consistent takes one moment\n");
    }
    return {};
  }

  std::string path_, format_ = "elf";
  bool force_ = false;
};

}  // namespace

extern const VerbInfo snapshot_verb{
    .name = "snapshot",
    .group = "What is in the guest",
    .arguments = "VM FILE [options]",
    .summary = "The guest's memory in a file, for gdb, crash and vmsight itself",
    .examples =
        "  vmsight snapshot web1 web1.core --consistent\n"
        "  vmsight ps web1.core\n",
    .keeps_rights = "writes a file",
    .make = make_verb<Snapshot>,
};

}  // namespace vmsight
