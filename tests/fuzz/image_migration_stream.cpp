// Any bytes as a migration file: what is found lies in the file, and costs what was wanted.
#include "image/migration_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsight;
  const std::vector<WantedBlock> wanted = {{"pc.ram", 0x8000}, {"ram0", 0x1000}};
  const std::vector<std::byte> file(reinterpret_cast<const std::byte*>(data),
                                    reinterpret_cast<const std::byte*>(data) + size);
  const auto found = parse_migration_stream(file, wanted);
  if (!found) return 0;
  VMSIGHT_CHECK(found->size() == wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const StreamBlock& block = (*found)[i];
    VMSIGHT_CHECK(block.pages.size() <= wanted[i].size >> page_shift);
    for (const std::uint64_t at : block.pages) {
      VMSIGHT_CHECK(at == 0 || (at < size && size - at >= page_size));  // 0: a page of zeros
    }
    if (block.mapped) VMSIGHT_CHECK(block.pages_at + wanted[i].size > block.pages_at);
  }
  return 0;
}
