#include "image/page_codecs.h"

#include <lzo/lzo1x.h>
#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace vmsight {
namespace {

/// zlib's state costs as much to make as a page to unpack: it is kept.
class Inflater {
 public:
  Inflater() : usable_(inflateInit(&stream_) == Z_OK) {}
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() {
    if (usable_) inflateEnd(&stream_);
  }
  bool unpack(std::span<const std::byte> from, std::span<std::byte> into) {
    if (!usable_ || inflateReset(&stream_) != Z_OK) return false;
    stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
    stream_.avail_in = static_cast<uInt>(from.size());
    stream_.next_out = reinterpret_cast<Bytef*>(into.data());
    stream_.avail_out = static_cast<uInt>(into.size());
    return inflate(&stream_, Z_FINISH) == Z_STREAM_END && stream_.avail_out == 0;
  }

 private:
  z_stream stream_{};
  bool usable_;
};

bool unpack_lzo(std::span<const std::byte> from, std::span<std::byte> into) {
  lzo_uint length = into.size();
  return lzo1x_decompress_safe(reinterpret_cast<const unsigned char*>(from.data()), from.size(),
                               reinterpret_cast<unsigned char*>(into.data()), &length,
                               nullptr) == LZO_E_OK &&
         length == into.size();
}

bool unpack_snappy(std::span<const std::byte> from, std::span<std::byte> into) {
  const char* text = reinterpret_cast<const char*>(from.data());
  std::size_t length = 0;
  return snappy::GetUncompressedLength(text, from.size(), &length) && length == into.size() &&
         snappy::RawUncompress(text, from.size(), reinterpret_cast<char*>(into.data()));
}

bool unpack_zstd(std::span<const std::byte> from, std::span<std::byte> into) {
  thread_local const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context(
      ZSTD_createDCtx(), &ZSTD_freeDCtx);
  const std::size_t length =
      ZSTD_decompressDCtx(context.get(), into.data(), into.size(), from.data(), from.size());
  return ZSTD_isError(length) == 0 && length == into.size();
}

}  // namespace

bool unpack_page(PageCodec codec, std::span<const std::byte> from, std::span<std::byte> into) {
  switch (codec) {
    case PageCodec::zlib: {
      thread_local Inflater inflater;
      return inflater.unpack(from, into);
    }
    case PageCodec::lzo:
      return unpack_lzo(from, into);
    case PageCodec::snappy:
      return unpack_snappy(from, into);
    case PageCodec::zstd:
      return unpack_zstd(from, into);
  }
  return false;
}

}  // namespace vmsight
