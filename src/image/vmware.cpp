// VMware's memory files: .vmem is raw memory; of a VM with more than 3 GiB, where each of its regions
// is in guest-physical memory is told by the suspended state (.vmss) or snapshot (.vmsn) beside it.
// As volatility3 reads them (volatility3/framework/layers/vmware.py); all little-endian.
//
//   state   u32 magic, u32, u32 groups | {name[64], u64 offset, u64} ... | tags of group "memory":
//           u8 flags, u8 length, name, u32 indices (flags >> 6), value of (flags & 0x3f) bytes;
//           62 and 63: u64 size twice, u16, then the value. Flags and length 0 end them.
#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <map>

#include "image/image_format.h"

namespace vmsight {
namespace {

constexpr std::uint32_t most_groups = 4096, most_tags = 1U << 16, most_regions = 4096;
constexpr std::size_t state_header = 12, group_size = 80;

Error bad_state(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("read VMware state: {}", what)};
}

/// The tags of the group "memory" that hold one number.
class MemoryTags {
 public:
  explicit MemoryTags(const ImageBytes& file) : file_(file) {}

  Result<void> read() {
    VMSIGHT_TRY(at_, group_of_memory());
    for (std::uint32_t i = 0; i < most_tags; ++i) {
      VMSIGHT_TRY(const bool more, read_tag());
      if (!more) return {};
    }
    return bad_state("too many tags");
  }

  std::optional<std::uint64_t> find(std::string_view name,
                                    std::optional<std::uint32_t> index = {}) {
    const auto found = tags_.find({std::string(name), index});
    return found == tags_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  Result<std::uint64_t> group_of_memory() {
    VMSIGHT_TRY(const auto magic, number_at<std::uint32_t>(file_, 0));
    wide_ = (magic & 0xf) != 0;
    if (magic >> 16 != 0xbed2 && magic >> 16 != 0xbad1 && magic >> 16 != 0xbed3) {
      return bad_state("it is none");
    }
    VMSIGHT_TRY(const auto groups, number_at<std::uint32_t>(file_, 8));
    for (std::uint32_t i = 0; i < std::min(groups, most_groups); ++i) {
      std::array<std::byte, group_size> group;
      VMSIGHT_TRY_VOID(file_.read(state_header + i * group_size, group));
      const std::string_view name(reinterpret_cast<const char*>(group.data()), 64);
      if (name.substr(0, name.find('\0')) == "memory") return number_in<std::uint64_t>(group, 64);
    }
    return bad_state("it says nothing of memory");
  }

  /// False at the end.
  Result<bool> read_tag() {
    VMSIGHT_TRY(const auto flags, number_at<std::uint8_t>(file_, at_));
    VMSIGHT_TRY(const auto length, number_at<std::uint8_t>(file_, at_ + 1));
    if (flags == 0 && length == 0) return false;
    std::string name(length, '\0');
    VMSIGHT_TRY_VOID(file_.read(at_ + 2, std::as_writable_bytes(std::span(name))));
    at_ += 2 + std::uint64_t{length};
    std::optional<std::uint32_t> index;
    for (unsigned i = 0; i < flags >> 6U; ++i) {
      VMSIGHT_TRY(const auto number, number_at<std::uint32_t>(file_, at_));
      if (i == 0) index = number;
      at_ += sizeof number;
    }
    return read_value(std::move(name), index, flags & 0x3fU);
  }

  Result<bool> read_value(std::string name, std::optional<std::uint32_t> index, unsigned size) {
    if (size >= 62) {
      const std::uint64_t width = wide_ ? 8 : 4;
      std::uint64_t length = 0;
      if (wide_) {
        VMSIGHT_TRY(length, number_at<std::uint64_t>(file_, at_));
      } else {
        VMSIGHT_TRY(length, number_at<std::uint32_t>(file_, at_));
      }
      if (length > file_.size()) return bad_state("a value is longer than the file");
      at_ += 2 * width + 2 + length;
      return true;
    }
    std::array<std::byte, 8> value{};
    VMSIGHT_TRY_VOID(file_.read(at_, std::span(value).first(std::min<std::size_t>(size, 8))));
    tags_[{std::move(name), index}] = number_in<std::uint64_t>(value, 0);
    at_ += size;
    return true;
  }

  const ImageBytes& file_;
  std::uint64_t at_ = 0;
  bool wide_ = true;
  std::map<std::pair<std::string, std::optional<std::uint32_t>>, std::uint64_t> tags_;
};

bool is_vmware(const ImageSource& source) {
  return source.depth == 0 && source.file.state != nullptr;
}

Result<void> add_region(Image& image, MemoryTags& tags, std::uint32_t index, std::uint64_t file) {
  const auto frame = tags.find("regionPPN", index), page = tags.find("regionPageNum", index),
             pages = tags.find("regionSize", index);
  if (!frame || !page || !pages) return bad_state("a region is not described");
  constexpr std::uint64_t most = 1ULL << 40;  // pages
  if (*frame > most || *page > most || *pages > most) return bad_state("a region is too large");
  const std::uint64_t offset = *page * page_size, size = *pages * page_size;
  if (offset > file || size > file - offset) {
    image.problems.push_back(fmt::format("the .vmem file ends before region {} does", index));
  }
  return add_segment(image, {*frame * page_size, size, offset, size});
}

Result<Image> read_vmware(const ImageSource& source) {
  MemoryTags tags(*source.file.state);
  VMSIGHT_TRY_VOID(tags.read());
  const std::uint64_t regions = tags.find("regionsCount").value_or(0);
  if (regions == 0) {  // at most 3 GiB
    const std::uint64_t size = source.bytes->size();
    Image image{.format = "vmware"};
    VMSIGHT_TRY_VOID(add_segment(image, {0, size, 0, size}));
    if (image.segments.empty()) return bad_state("no memory in the .vmem file");
    return image;
  }
  if (regions > most_regions) return bad_state("too many regions");
  Image image{.format = "vmware"};
  for (std::uint32_t i = 0; i < regions; ++i) {
    VMSIGHT_TRY_VOID(add_region(image, tags, i, source.bytes->size()));
  }
  if (image.segments.empty()) return bad_state("no memory in it");
  return image;
}

}  // namespace

std::string vmware_state_beside(const std::string& path) {
  if (!path.ends_with(".vmem")) return "";
  for (const std::string_view ending : {".vmss", ".vmsn"}) {
    std::string other = path.substr(0, path.size() - ending.size()) + std::string(ending);
    struct stat info {};
    if (::stat(other.c_str(), &info) == 0 && S_ISREG(info.st_mode)) return other;
  }
  return "";
}

extern const ImageFormat vmware_format;
const ImageFormat vmware_format{is_vmware, read_vmware};

}  // namespace vmsight
