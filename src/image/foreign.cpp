// Files that people take for memory images, and that are none or are not read.
#include <array>
#include <string_view>

#include "image/foreign.h"

namespace vmsight {
namespace {

using namespace std::string_view_literals;

struct Foreign {
  std::string_view magic, what, hint;
};

constexpr std::string_view unpack_hint = "unpack it first; then give the file that was in it";
constexpr std::string_view diskdump_hint =
    "it is of a kernel before 2.6.13; makedumpfile's kdump files are read";
constexpr std::string_view disk_hint = "it holds a disk, not memory (see `vmsight --help`)";
constexpr std::string_view vmware_hint =
    "name the .vmem file beside it; without one, VMware's vmss2core makes a core file";

/// Files that people may take for memory images; the first bytes tell. What is to be done must not
/// need the VM to run, unless there is no other way.
constexpr std::array foreign_formats = {
    Foreign{"DISKDUMP"sv, "a compressed diskdump", diskdump_hint},
    Foreign{"LibvirtQemudPart"sv, "an unfinished saved libvirt domain",
            "it was cut off while it was saved, and libvirt does not restore it either"},
    Foreign{"\xd0\xbe\xd2\xbe"sv, "a VMware suspended state or snapshot", vmware_hint},
    Foreign{"\xd1\xba\xd1\xba"sv, "a VMware suspended state or snapshot", vmware_hint},
    Foreign{"\xd2\xbe\xd2\xbe"sv, "a VMware suspended state or snapshot", vmware_hint},
    Foreign{"\xd3\xbe\xd3\xbe"sv, "a VMware suspended state or snapshot", vmware_hint},
    Foreign{"\x7fVirtualBox SavedState"sv, "a VirtualBox saved state",
            "start the VM; `VBoxManage debugvm VM dumpvmcore --filename=OUT` writes an ELF core"},
    Foreign{"PAGEDU"sv, "a Windows crash dump", "vmsight reads Linux guests"},
    Foreign{"VMA\0"sv, "a Proxmox backup", "it holds disks: `vma extract` unpacks it"},
    Foreign{"QFI\xfb"sv, "a qcow2 disk image", disk_hint},
    Foreign{"KDMV"sv, "a VMDK disk image", disk_hint},
    Foreign{"vhdxfile"sv, "a VHDX disk image", disk_hint},
    Foreign{"<<< "sv, "a VirtualBox disk image", disk_hint},
    Foreign{"\xfd"
            "7zXZ"sv,
            "compressed by xz", unpack_hint},
    Foreign{"\x04\x22\x4d\x18"sv, "compressed by lz4", unpack_hint},
    Foreign{"BZh"sv, "compressed by bzip2", unpack_hint},
    Foreign{"\x89LZO"sv, "compressed by lzop", unpack_hint},
    Foreign{"PK\x03\x04"sv, "a zip archive", unpack_hint},
    Foreign{"7z\xbc\xaf"sv, "a 7z archive", unpack_hint},
    Foreign{"Rar!"sv, "a rar archive", unpack_hint},
};

}  // namespace

std::optional<Error> foreign_image(std::string_view start) {
  for (const Foreign& format : foreign_formats) {
    if (!start.starts_with(format.magic)) continue;
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("read image: it is {}", format.what),
                 .hint = std::string(format.hint)};
  }
  return std::nullopt;
}

}  // namespace vmsight
