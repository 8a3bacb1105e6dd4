#include "state/modules.h"

#include <fmt/format.h>

#include "state/lists.h"
#include "state/members.h"
#include "state/retry.h"

namespace vmsight {
namespace {

// enum module_state and MODULE_REF_BASE, include/linux/module.h and kernel/module of the sources.
constexpr std::uint32_t state_unformed = 3;
constexpr std::int64_t reference_base = 1;
// Far more than any kernel has; bounds on our memory and time.
constexpr std::size_t max_modules = 1u << 16, max_users = 1u << 18;

std::string_view state_name(std::uint32_t state) {
  switch (state) {
    case 0:
      return "Live";
    case 1:
      return "Loading";
    case 2:
      return "Unloading";
    default:
      return "";
  }
}

}  // namespace

Result<ModulesReader> ModulesReader::resolve(Kernel& kernel) {
  Members members(kernel);
  ModulesReader self;
  self.list_head_ = members.symbol("modules");
  self.list_ = members.offset("module", "list");
  self.name_ = members.member("module", "name");
  self.state_ = members.offset("module", "state");
  self.refcnt_ = members.offset("module", "refcnt");
  self.init_ = members.offset("module", "init");
  self.exit_ = members.offset("module", "exit");
  self.users_ = members.offset("module", "source_list");
  self.use_link_ = members.offset("module_use", "source_list");
  self.use_source_ = members.offset("module_use", "source");
  if (const auto memories = kernel.member("module", "mem")) {
    self.area_count_ = std::min<std::size_t>(memories->count, max_areas);
    const std::uint32_t stride = members.size("module_memory");
    for (std::size_t i = 0; i < self.area_count_; ++i) {
      self.areas_[i] = memories->offset + static_cast<std::uint32_t>(i) * stride;
    }
    self.area_base_ = members.offset("module_memory", "base");
    self.area_size_ = members.offset("module_memory", "size");
  } else {
    self.area_count_ = 2;
    self.areas_ = {members.offset("module", "core_layout"),
                   members.offset("module", "init_layout")};
    self.area_base_ = members.offset("module_layout", "base");
    self.area_size_ = members.offset("module_layout", "size");
  }
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void ModulesReader::read(Context& context) const {
  read_whole(context, context.state.modules, [&] { return read_all(context); });
}

bool ModulesReader::read_all(Context& context) const {
  Reader& reader = context.reader;
  std::size_t unreadable = 0, users_left = max_users;
  const bool complete = walk_list(reader, list_head_, [&](GuestVirt node) {
    if (context.state.modules.size() == max_modules) return reader.set_fault(node);
    Module record;
    if (!read_module(context, node - list_, users_left, record)) {
      ++unreadable;
    } else if (record.state.data() != nullptr) {
      context.state.modules.push_back(std::move(record));
    }
    reader.clear_fault();
  });
  if (!complete) {
    context.state.problem("modules", fmt::format("the list of modules breaks at {}",
                                                 reader.fault().value_or(list_head_)));
  }
  if (unreadable != 0) {
    context.state.problem("modules", fmt::format("{} modules are not readable", unreadable));
  }
  return complete && unreadable == 0;
}

/// Leaves the state null for a module that is only being formed: /proc/modules hides those.
bool ModulesReader::read_module(Context& context, GuestVirt module, std::size_t& users_left,
                                Module& into) const {
  Reader& reader = context.reader;
  const std::uint32_t state = reader.u32(module + state_);
  if (state == state_unformed) return reader.ok();
  into.name = read_name(context, module);
  into.state = state_name(state);
  into.refcount = static_cast<std::int32_t>(reader.u32(module + refcnt_)) - reference_base;
  into.base = area(reader, module, 0).base;
  for (std::size_t i = 0; i < area_count_; ++i) into.size += area(reader, module, i).size;
  read_users(context, module, users_left, into);
  return reader.ok() && !into.name.empty() && state < state_unformed;
}

void ModulesReader::read_users(Context& context, GuestVirt module, std::size_t& users_left,
                               Module& into) const {
  Reader& reader = context.reader;
  walk_list(reader, module + users_, [&](GuestVirt node) {
    const GuestVirt user = reader.pointer(node - use_link_ + use_source_);
    if (users_left == 0) return reader.set_fault(node);
    --users_left;
    into.used_by.push_back(read_name(context, user));
  });
  // A module that can be started but not ended stays; /proc/modules lists that as a user.
  if (reader.u64(module + init_) != 0 && reader.u64(module + exit_) == 0) {
    into.used_by.push_back("[permanent]");
  }
}

std::string_view ModulesReader::read_name(Context& context, GuestVirt module) const {
  const std::span<char> room = context.arena().allocate(std::min(name_.size, 64U));
  const std::string_view name = context.reader.c_string(module + name_.offset, room);
  return context.arena().shrink(room, name.size());
}

ModulesReader::Area ModulesReader::area(Reader& reader, GuestVirt module, std::size_t index) const {
  const GuestVirt at = module + areas_[index];
  return {reader.pointer(at + area_base_), reader.u32(at + area_size_)};
}

std::string_view ModulesReader::owner_of(Context& context, GuestVirt address) const {
  Reader& reader = context.reader;
  GuestVirt owner;
  reader.clear_fault();
  std::size_t seen = 0;
  walk_list(reader, list_head_, [&](GuestVirt node) {
    if (++seen > max_modules) return reader.set_fault(node);
    for (std::size_t i = 0; i < area_count_ && owner == GuestVirt(); ++i) {
      const Area memory = area(reader, node - list_, i);
      if (address >= memory.base && address - memory.base < memory.size) owner = node - list_;
    }
  });
  const std::string_view name =
      owner == GuestVirt() ? std::string_view("") : read_name(context, owner);
  const bool readable = reader.ok();
  reader.clear_fault();
  return readable ? name : "";
}

}  // namespace vmsight
