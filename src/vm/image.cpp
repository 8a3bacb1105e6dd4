// open_image: a memory image as a set of guest-physical segments.
#include <fcntl.h>
#include <sys/stat.h>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "vm/image_formats.h"

namespace vmsight {
namespace {

using namespace std::string_view_literals;

struct Format {
  std::string_view magic, what, hint;
};

constexpr std::string_view unpack_hint = "unpack it first; then give the file that was in it";
constexpr std::string_view kdump_hint =
    "crash and drgn read it; vmsight wants an ELF core: of a running VM, dump-guest-memory without "
    "-z -l -s, or vmsight snapshot; of a crash, makedumpfile -E in place of -c -l -p -z";
constexpr std::string_view ranges_hint =
    "write it anew as raw memory in which each range lies at its own address, and zeros between "
    "them";
constexpr std::string_view disk_hint =
    "it holds a disk; a memory image is an ELF core, or raw memory (see `vmsight --help`)";
constexpr std::string_view vmware_hint =
    "the .vmem file beside it is the memory, raw, of a VM with at most 3 GiB; of a larger one, "
    "VMware's vmss2core makes a core file";

/// Files that people may take for memory images; the first bytes tell. What is to be done must not
/// need the VM to run, unless there is no other way.
constexpr std::array foreign_formats = {
    Format{"KDUMP   "sv, "a compressed kdump", kdump_hint},
    Format{"DISKDUMP"sv, "a compressed diskdump", kdump_hint},
    Format{
        "makedumpfile"sv, "a flattened kdump",
        "`makedumpfile -R OUT < FILE` puts it in order; of one written with -E comes an ELF core, "
        "which vmsight reads"},
    Format{"LibvirtQemudSave"sv, "a saved libvirt domain",
           "`virsh restore --paused FILE`, then `virsh dump --memory-only DOMAIN OUT`"},
    Format{"LibvirtQemudPart"sv, "an unfinished saved libvirt domain",
           "it was cut off while it was saved, and libvirt does not restore it either"},
    Format{
        "QEVM"sv, "a QEMU migration stream",
        "start QEMU with the VM's options and -S -incoming 'exec:cat FILE', then vmsight snapshot"},
    Format{"EMiL"sv, "a LiME dump with ranges", ranges_hint},  // LiME's format=padded is that
    Format{"AVML"sv, "an AVML dump", ranges_hint},
    Format{"\xd0\xbe\xd2\xbe"sv, "a VMware suspended state or snapshot", vmware_hint},
    Format{"\xd1\xba\xd1\xba"sv, "a VMware suspended state or snapshot", vmware_hint},
    Format{"\xd2\xbe\xd2\xbe"sv, "a VMware suspended state or snapshot", vmware_hint},
    Format{"\xd3\xbe\xd3\xbe"sv, "a VMware suspended state or snapshot", vmware_hint},
    Format{"\x7fVirtualBox SavedState"sv, "a VirtualBox saved state",
           "start the VM; `VBoxManage debugvm VM dumpvmcore --filename=OUT` writes an ELF core"},
    Format{"PAGEDU"sv, "a Windows crash dump", "vmsight reads Linux guests"},
    Format{"VMA\0"sv, "a Proxmox backup", "it holds disks: `vma extract` unpacks it"},
    Format{"QFI\xfb"sv, "a qcow2 disk image", disk_hint},
    Format{"KDMV"sv, "a VMDK disk image", disk_hint},
    Format{"vhdxfile"sv, "a VHDX disk image", disk_hint},
    Format{"<<< "sv, "a VirtualBox disk image", disk_hint},
    Format{"\x1f\x8b"sv, "compressed by gzip", unpack_hint},
    Format{"\x28\xb5\x2f\xfd"sv, "compressed by zstd", unpack_hint},
    Format{"\xfd"
           "7zXZ"sv,
           "compressed by xz", unpack_hint},
    Format{"\x04\x22\x4d\x18"sv, "compressed by lz4", unpack_hint},
    Format{"BZh"sv, "compressed by bzip2", unpack_hint},
    Format{"\x89LZO"sv, "compressed by lzop", unpack_hint},
    Format{"PK\x03\x04"sv, "a zip archive", unpack_hint},
    Format{"7z\xbc\xaf"sv, "a 7z archive", unpack_hint},
    Format{"Rar!"sv, "a rar archive", unpack_hint},
};

Result<ImageFile> open_file(const std::string& path) {
  ImageFile file;
  file.fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.fd) return os_error(errno, "open " + path);
  struct stat status {};
  if (::fstat(file.fd.get(), &status) != 0) return os_error(errno, "open " + path);
  if (!S_ISREG(status.st_mode)) {
    return Error{.code = ErrorCode::unsupported, .message = "open " + path + ": not a file"};
  }
  file.size = static_cast<std::uint64_t>(status.st_size);
  return file;
}

Result<Image> read_image(const ImageFile& file) {
  std::array<std::byte, 32> start{};
  const auto length = std::min<std::uint64_t>(start.size(), file.size);
  VMSIGHT_TRY_VOID(file.read(0, std::span(start).first(length)));
  const std::string_view magic(reinterpret_cast<const char*>(start.data()), length);
  for (const Format& format : foreign_formats) {
    if (!magic.starts_with(format.magic)) continue;
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("read image: it is {}", format.what),
                 .hint = std::string(format.hint)};
  }
  return magic.starts_with(
             "\x7f"
             "ELF")
             ? read_elf_core(file)
             : read_raw_memory(file);
}

Result<RamMap> ram_of(const std::vector<ImageSegment>& segments) {
  std::vector<RamRange> ranges;
  for (const ImageSegment& segment : segments) {
    ranges.push_back({segment.start, segment.size, "", segment.file_offset});
  }
  return RamMap::from(std::move(ranges));
}

}  // namespace

Result<void> ImageFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = ::pread(fd.get(), into.data() + done, into.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, "read image");
    if (got == 0) {
      return Error{.code = ErrorCode::bad_data, .message = "read image: it ends too early"};
    }
    done += static_cast<std::size_t>(got);
  }
  return {};
}

Result<Image> open_image(const std::string& path) {
  VMSIGHT_TRY(const ImageFile file, open_file(path));
  auto image = read_image(file);
  if (!image) {
    Error error = std::move(image).error();
    error.message = path + ": " + error.message;
    return error;
  }
  image->path = path;
  VMSIGHT_TRY(image->ram, ram_of(image->segments));
  return image;
}

}  // namespace vmsight
