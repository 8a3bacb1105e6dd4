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

constexpr std::string_view dump_hint =
    "make an ELF core of the running VM: dump-guest-memory without -z -l -s, or vmsight snapshot";
constexpr std::string_view unpack_hint = "unpack it first";

/// Files that people may take for memory images; the first bytes tell.
constexpr std::array foreign_formats = {
    Format{"KDUMP   "sv, "a compressed kdump", dump_hint},
    Format{"DISKDUMP"sv, "a compressed diskdump", dump_hint},
    Format{"makedumpfile"sv, "a flattened kdump", dump_hint},
    Format{"LibvirtQemudSave"sv, "a saved libvirt domain", "use virsh dump --memory-only"},
    Format{"LibvirtQemudPart"sv, "an unfinished saved libvirt domain",
           "use virsh dump --memory-only"},
    Format{"QEVM"sv, "a QEMU migration stream", dump_hint},
    Format{"QFI\xfb"sv, "a qcow2 disk image", dump_hint},
    Format{"PAGEDU"sv, "a Windows crash dump", "vmsight reads Linux guests"},
    Format{"EMiL"sv, "a LiME dump", dump_hint},
    Format{"\x1f\x8b"sv, "compressed by gzip", unpack_hint},
    Format{"\x28\xb5\x2f\xfd"sv, "compressed by zstd", unpack_hint},
    Format{"\xfd"
           "7zXZ"sv,
           "compressed by xz", unpack_hint},
    Format{"\x04\x22\x4d\x18"sv, "compressed by lz4", unpack_hint},
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
  std::array<std::byte, 16> start{};
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
