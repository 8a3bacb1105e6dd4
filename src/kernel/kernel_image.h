// Where a kernel image lies, physically and virtually; from the kernel's own page table.
//
//   physical   text (multiple of 2 MiB) ............ rodata ......... text + size
//   virtual    0xffffffff80000000 + i * 2 MiB  ...
//
// The two are randomised independently; the architecture knows how its page tables map an image.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernel/scan.h"
#include "kernel/symbol_table.h"
#include "vmsight/kernel.h"

namespace vmsight {

struct KernelImage {
  GuestPhys rodata;      // __start_rodata
  std::string banner;    // linux_banner
  std::string build_id;  // hex, "" if the kernel has none
  GuestPhys text;        // _text
  GuestVirt text_va;
  std::uint64_t size = 0;  // _text to _end
  GuestPhys page_table;    // the kernel's own
  const Architecture* architecture = nullptr;
  unsigned page_table_levels = 0;

  std::uint64_t delta() const { return text_va.raw() - text.raw(); }
  GuestPhys physical(const SymbolValue& symbol) const { return text + symbol.value; }
  GuestVirt address(const SymbolValue& symbol) const {
    return symbol.absolute ? GuestVirt(symbol.value) : text_va + symbol.value;
  }
};

/// Places the image around a banner. bad_data if its tables contradict each other (a stale,
/// damaged or forged image), unsupported if a needed symbol is missing.
Result<KernelImage> place_image(GuestMemory& memory, const BannerHit& hit, SymbolTable& symbols);

/// The banners that the page tables of vCPUs map: those of the kernels that run on them.
/// Costs a few reads where a scan of RAM costs thousands.
Result<std::vector<BannerHit>> banners_of_vcpus(GuestMemory& memory,
                                                std::span<const std::uint64_t> cr3);

/// Whether one of the vCPUs' page tables maps this image at its place.
bool is_mapped_by(GuestMemory& memory, const KernelImage& image,
                  std::span<const std::uint64_t> cr3);

}  // namespace vmsight
