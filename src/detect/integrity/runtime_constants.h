// Constants that a kernel writes into its own instructions at boot (since 6.10): where its dentry hash
// table is, where its slab caches are. They differ from boot to boot, and its list of their places is
// freed. They are recognised by what they are:
//
//   movabs $imm64,%reg     48|49 b8..bf imm64     before and now an address in the kernel's half, and now one
//                                                 of data; the same constant changed alike wherever it is
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

class RuntimeConstants {
 public:
  RuntimeConstants(Kernel& kernel, Reader& reader) : kernel_(kernel), reader_(reader) {}

  /// Of two texts that differ at `at`: where the constant ends that explains it; nullopt if there is none.
  std::optional<std::size_t> end_of(std::span<const std::byte> before,
                                    std::span<const std::byte> now, std::size_t at);

 private:
  bool is_data(std::uint64_t address);

  Kernel& kernel_;
  Reader& reader_;
  std::map<std::uint64_t, std::uint64_t> changed_;  // what it was, what it is
};

}  // namespace vmsight
