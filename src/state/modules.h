// Loaded kernel modules, in the order and words of /proc/modules.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "state/context.h"

namespace vmsight {

class ModulesReader {
 public:
  static Result<ModulesReader> resolve(Kernel& kernel);
  void read(Context& context) const;

  /// The name of the module that holds `address` ("" if none does), in the arena. Walks the list
  /// of modules; for the few parts that must know whose code they meet.
  std::string_view owner_of(Context& context, GuestVirt address) const;

 private:
  struct Area {
    GuestVirt base;
    std::uint64_t size = 0;
  };
  /// A kernel has either core and init memory, or several memories by type: up to 8 areas, the
  /// first holding the text.
  static constexpr std::size_t max_areas = 8;

  bool read_all(Context& context) const;
  bool read_module(Context& context, GuestVirt module, std::size_t& users_left, Module& into) const;
  void read_users(Context& context, GuestVirt module, std::size_t& users_left, Module& into) const;
  std::string_view read_name(Context& context, GuestVirt module) const;
  Area area(Reader& reader, GuestVirt module, std::size_t index) const;

  GuestVirt list_head_;
  Member name_;
  std::uint32_t list_ = 0, state_ = 0, refcnt_ = 0, init_ = 0, exit_ = 0;
  std::uint32_t users_ = 0, use_link_ = 0, use_source_ = 0;
  std::array<std::uint32_t, max_areas> areas_{};
  std::size_t area_count_ = 0;
  std::uint32_t area_base_ = 0, area_size_ = 0;
};

}  // namespace vmsight
