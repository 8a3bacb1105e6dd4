#include "support/image_files.h"

#include <fmt/format.h>
#include <lzo/lzo1x.h>
#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

namespace vmsight::test {
namespace {

template <typename T>
std::string little(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string big(std::uint64_t value) { return little(__builtin_bswap64(value)); }

std::string to_block(std::string text) {
  text.resize((text.size() + image_page - 1) / image_page * image_page);
  return text;
}

std::string zlib_packed(std::string_view from) {
  std::string packed(compressBound(from.size()), '\0');
  uLongf length = packed.size();
  compress(reinterpret_cast<Bytef*>(packed.data()), &length,
           reinterpret_cast<const Bytef*>(from.data()), from.size());
  packed.resize(length);
  return packed;
}

std::string lzo_packed(std::string_view from) {
  std::string packed(from.size() * 2, '\0'), work(LZO1X_1_MEM_COMPRESS, '\0');
  lzo_uint length = packed.size();
  lzo1x_1_compress(reinterpret_cast<const unsigned char*>(from.data()), from.size(),
                   reinterpret_cast<unsigned char*>(packed.data()), &length, work.data());
  packed.resize(length);
  return packed;
}

std::string snappy_packed(std::string_view from) {
  std::string packed;
  snappy::Compress(from.data(), from.size(), &packed);
  return packed;
}

std::string pack(KdumpCodec codec, std::string_view page) {
  switch (codec) {
    case KdumpCodec::zlib:
      return zlib_packed(page);
    case KdumpCodec::lzo:
      return lzo_packed(page);
    case KdumpCodec::snappy:
      return snappy_packed(page);
    case KdumpCodec::zstd:
      return zstd_packed(page);
    case KdumpCodec::none:
      break;
  }
  return std::string(page);
}

/// Bit by bit, to be compared with the table of the reader.
std::uint32_t masked_crc32c(std::string_view bytes) {
  std::uint32_t value = ~0U;
  for (const char c : bytes) {
    value ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82f63b78U : 0);
  }
  value = ~value;
  return ((value >> 15) | (value << 17)) + 0xa282ead8U;
}

std::string frame(std::uint8_t type, std::string_view content) {
  return little(static_cast<std::uint32_t>(type | content.size() << 8)) + std::string(content);
}

std::string lime_header(std::string_view magic, std::uint32_t version, std::uint64_t start,
                        std::uint64_t size) {
  return std::string(magic) + little(version) + little(start) + little(start + size - 1) +
         little(std::uint64_t{0});
}

}  // namespace

std::string test_page(std::uint64_t number) {
  std::string page;
  while (page.size() < image_page) page += fmt::format("page {} of the guest, ", number);
  page.resize(image_page);
  return page;
}

std::string test_pages(std::uint64_t first, std::uint64_t count) {
  std::string pages;
  for (std::uint64_t i = 0; i < count; ++i) pages += test_page(first + i);
  return pages;
}

std::string lime_range(std::uint64_t start, std::string_view memory) {
  return lime_header("EMiL", 1, start, memory.size()) + std::string(memory);
}

std::string avml_block(std::uint64_t start, std::string_view memory, bool packed) {
  std::string stream = frame(0xff, "sNaPpY");
  for (std::size_t at = 0; at < memory.size(); at += 65536) {
    const std::string_view piece = memory.substr(at, 65536);
    const std::string sum = little(masked_crc32c(piece));
    stream += packed ? frame(0, sum + snappy_packed(piece)) : frame(1, sum + std::string(piece));
  }
  return lime_header("AVML", 2, start, memory.size()) + stream +
         little(std::uint64_t{stream.size()});
}

std::string KdumpFile::bytes() const {
  const std::size_t bitmap = (pages.size() + 8 * image_page - 1) / (8 * image_page) * image_page;
  std::string ram(bitmap, '\0'), dumped(bitmap, '\0');
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const char bit = static_cast<char>(1U << i % 8);
    if (pages[i] != Page::not_ram) ram[i / 8] = static_cast<char>(ram[i / 8] | bit);
    if (pages[i] < Page::zero) continue;
    dumped[i / 8] = static_cast<char>(dumped[i / 8] | bit);
    ++count;
  }
  const std::uint64_t descriptors_at = 2 * image_page + 2 * bitmap;
  std::uint64_t at = descriptors_at + count * 24;
  const auto descriptor = [](std::uint64_t offset, std::uint64_t size, std::uint32_t flags) {
    return little(offset) + little(static_cast<std::uint32_t>(size)) + little(flags) +
           little(std::uint64_t{0});
  };
  const std::string zeros = pack(codec, std::string(image_page, '\0'));
  std::string data = zeros, descriptors;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const auto flags = static_cast<std::uint32_t>(codec);
    if (pages[i] == Page::zero) descriptors += descriptor(at, zeros.size(), flags);
    if (pages[i] != Page::dumped) continue;
    const std::string page = pack(codec, test_page(i));
    descriptors += descriptor(at + data.size(), page.size(), flags);
    data += page;
  }
  at += data.size();
  std::string header = "KDUMP   " + little(std::uint32_t{6});
  header.resize(424);
  header += little(status) + little(std::uint32_t{image_page}) + little(std::uint32_t{1});
  header += little(static_cast<std::uint32_t>(2 * bitmap / image_page));
  header += little(static_cast<std::uint32_t>(pages.size()));
  std::string sub(32, '\0');
  sub += little(vmcoreinfo.empty() ? 0 : at) + little(std::uint64_t{vmcoreinfo.size()});
  sub += little(notes.empty() ? 0 : at + vmcoreinfo.size()) + little(std::uint64_t{notes.size()});
  sub.resize(96);
  sub += little(std::uint64_t{pages.size()});
  return to_block(header) + to_block(sub) + ram + dumped + descriptors + data + vmcoreinfo + notes;
}

std::string flattened(std::string_view dump, std::size_t size) {
  std::string all = std::string("makedumpfile\0\0\0\0", 16) + big(1) + big(1);
  all.resize(4096);
  const auto piece = [&](std::size_t at, std::string_view bytes) {
    all += big(at) + big(bytes.size()) + std::string(bytes);
  };
  piece(0, std::string(std::min<std::size_t>(8192, dump.size()), 'x'));  // written over later
  for (std::size_t at = 0; at < dump.size(); at += size) piece(at, dump.substr(at, size));
  piece(0, dump.substr(0, size / 2));
  return all + big(~0ULL) + big(~0ULL);
}

std::string gzipped(std::string_view bytes) {
  std::string packed(compressBound(bytes.size()) + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string zstd_packed(std::string_view bytes) {
  std::string packed(ZSTD_compressBound(bytes.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 1));
  return packed;
}

std::string saved_domain(std::string_view xml, std::string_view stream) {
  std::string header = "LibvirtQemudSave" + little(std::uint32_t{2});
  header += little(static_cast<std::uint32_t>(xml.size()));
  header.resize(92);
  return header + std::string(xml) + std::string(stream);
}

std::string vmware_state(const std::vector<VmwareRegion>& regions) {
  std::string tags;
  const auto tag = [&](std::string_view name, std::uint32_t value, int index) {
    tags += static_cast<char>(index < 0 ? 4 : 0x44);
    tags += static_cast<char>(name.size());
    tags += name;
    if (index >= 0) tags += little(static_cast<std::uint32_t>(index));
    tags += little(value);
  };
  tags += std::string("\x3e\x03", 2) + "big" + little(std::uint64_t{5}) + little(std::uint64_t{5}) +
          std::string(2, '\0') + "bytes";
  tag("regionsCount", static_cast<std::uint32_t>(regions.size()), -1);
  for (std::size_t i = 0; i < regions.size(); ++i) {
    tag("regionPPN", regions[i].frame, static_cast<int>(i));
    tag("regionPageNum", regions[i].page, static_cast<int>(i));
    tag("regionSize", regions[i].pages, static_cast<int>(i));
  }
  tags += std::string(2, '\0');
  const auto group = [](std::string name, std::uint64_t at) {
    name.resize(64);
    return name + little(at) + little(std::uint64_t{0});
  };
  const std::uint64_t end = 12 + 2 * 80;
  return "\xd2\xbe\xd2\xbe" + little(std::uint32_t{8}) + little(std::uint32_t{2}) +
         group("cpu", end) + group("memory", end) + tags;
}

}  // namespace vmsight::test
