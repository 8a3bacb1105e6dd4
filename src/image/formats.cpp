// The table of the formats that are read. Wrappers come first, what has a magic of its own next.
#include <array>

#include "image/image_format.h"

namespace vmsight {

extern const ImageFormat ranges_format, vmware_format, gzip_format, zstd_format, flattened_format,
    saved_domain_format, elf_format, kdump_format, lime_format, avml_format, migration_format;

namespace {
constexpr std::array formats = {
    // What the user says of the file, or lies beside it, comes before what it looks like.
    &ranges_format, &vmware_format,
    // Around others.
    &gzip_format, &zstd_format, &flattened_format, &saved_domain_format,
    // Memory.
    &elf_format, &kdump_format, &lime_format, &avml_format, &migration_format};
}  // namespace

std::span<const ImageFormat* const> image_formats() { return formats; }

}  // namespace vmsight
