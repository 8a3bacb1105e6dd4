// vmsight snapshot VM FILE: guest memory in a file for other tools.
#include <fcntl.h>
#include <sys/stat.h>
#include <cerrno>
#include <cstdio>

#include "attach/front_service.h"
#include "base/os.h"
#include "cli/attach.h"
#include "cli/progress.h"
#include "kernel/vmcoreinfo.h"
#include "render/format.h"
#include "render/memory_image.h"
#include "sandbox/sandbox.h"

namespace vmsight {
namespace {

/// A file that has its name only when it is complete. It is written by whoever reads the guest, and named by the front.
class PendingFile final : public FrontService {
 public:
  static Result<std::shared_ptr<PendingFile>> create(const std::string& path) {
    auto file = std::make_shared<PendingFile>();
    file->path_ = path;
    file->partial_ = fmt::format("{}.partial-{}", path, ::getpid());
    file->fd_ =
        UniqueFd(::open(file->partial_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file->fd_) return os_error(errno, "create " + file->partial_);
    return file;
  }
  PendingFile() = default;
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() override {
    if (!is_in_sandbox()) end();
  }

  /// Gives it its name.
  Result<std::string> serve(std::string_view what, std::string_view) override {
    if (what != "commit") return Error{ErrorCode::usage, "that is not done here"};
    if (::fsync(fd_.get()) != 0) return os_error(errno, "write " + path_);
    if (::rename(partial_.c_str(), path_.c_str()) != 0)
      return os_error(errno, "rename to " + path_);
    is_complete_ = true;
    return std::string();
  }
  void end() override {
    if (fd_ && !is_complete_) ::unlink(partial_.c_str());
  }
  int output() const override { return fd_.get(); }

 private:
  std::string path_, partial_;
  UniqueFd fd_;
  bool is_complete_ = false;
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
    VMSIGHT_TRY(file_, PendingFile::create(path_));
    session.common.service = file_;  // an image is looked at in the sandbox only
    VMSIGHT_TRY(Guest guest, open_named_memory(session.common));
    VMSIGHT_TRY_VOID(check_complete(guest));
    const auto registers = registers_of(guest);
    VMSIGHT_TRY_VOID(enter_sandbox_for(guest, session.common));
    auto done =
        format_ == "raw" ? write_raw(session, guest) : write_core(session, guest, registers);
    if (!done) return guest.explain(std::move(done).error());
    return {};
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

  /// Of a VM they are asked for as long as the monitor is within reach.
  static std::vector<VcpuRegisters> registers_of(Guest& guest) {
    if (guest.image) return guest.image->registers;
    auto registers = guest.vm->registers();
    return registers ? *std::move(registers) : std::vector<VcpuRegisters>();
  }

  Result<void> write_raw(Session& session, Guest& guest) {
    return in_one_view(*guest.memory, [&] {
      return save(session, guest, [&](int fd, const CopyProgress& progress) {
        return write_raw_image(fd, *guest.memory, progress);
      });
    });
  }

  Result<void> write_core(Session& session, Guest& guest,
                          const std::vector<VcpuRegisters>& registers) {
    VMSIGHT_TRY_VOID(find_kernel_in(guest, session.common));
    VMSIGHT_TRY(CoreDetails details, details_of(guest));
    details.registers = registers;
    VMSIGHT_TRY_VOID(in_one_view(*guest.memory, [&] {
      return save(session, guest, [&](int fd, const CopyProgress& progress) {
        return write_elf_core(fd, *guest.memory, details, progress);
      });
    }));
    if (session.common.use_cache) static_cast<void>(guest.kernel->save_cache());
    return {};
  }

  static Result<CoreDetails> details_of(Guest& guest) {
    CoreDetails details;
    details.direct_map = guest.kernel->page_offset();
    const AddressSpace::Window& image = guest.kernel->space().image();
    details.aliases.push_back(
        {GuestPhys(image.start.raw() - image.delta), image.end - image.start, image.start});
    details.vmcoreinfo = read_vmcoreinfo(*guest.kernel, *guest.memory);
    details.page_table = guest.kernel->space().root();
    return details;
  }

  template <typename Write>
  Result<void> save(Session& session, const Guest& guest, Write write) {
    const int fd = file_->output();
    {
      Progress progress;
      VMSIGHT_TRY_VOID(write(fd, [&](std::uint64_t done, std::uint64_t total) {
        progress.say(fmt::format("copied {} of {}", byte_size(done), byte_size(total)));
      }));
    }
    VMSIGHT_TRY(const std::string named,
                ask_service(guest, attach_options(session.common), "commit"));
    struct stat info {};
    ::fstat(fd, &info);
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
  std::shared_ptr<PendingFile> file_;
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
    .make = make_verb<Snapshot>,
};

}  // namespace vmsight
