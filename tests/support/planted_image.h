// An image that can be attached to: raw RAM with a planted kernel in it, in a folder of its own.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/synthetic_kernel.h"

namespace vmsight::test {

class PlantedImage {
 public:
  static constexpr std::uint64_t ram_size = 80U << 20;

  PlantedImage() {
    std::string name = std::filesystem::temp_directory_path() / "vmsight-planted-XXXXXX";
    VMSIGHT_CHECK(::mkdtemp(name.data()) != nullptr);
    directory_ = name;
    ByteMemory memory{{{GuestPhys(0), ram_size}}};
    plant_kernel(memory, spec_);
    const auto bytes = memory.at(GuestPhys(0));
    std::ofstream(path(), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(ram_size));
  }
  ~PlantedImage() { std::filesystem::remove_all(directory_); }
  PlantedImage(const PlantedImage&) = delete;
  PlantedImage& operator=(const PlantedImage&) = delete;

  const std::filesystem::path& directory() const { return directory_; }
  std::string path() const { return directory_ / "guest.raw"; }
  const KernelSpec& spec() const { return spec_; }

 private:
  std::filesystem::path directory_;
  KernelSpec spec_;
};

}  // namespace vmsight::test
