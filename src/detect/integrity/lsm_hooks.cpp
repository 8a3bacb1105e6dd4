// lsm-hooks: what the kernel asks before it allows something.
//
//   up to 6.11   security_hook_heads: a list a hook, of functions
//   since 6.12   static_calls_table: slots a hook, each a static call with its trampoline
//
// Modules of security are built in; what hooks more is the kernel's, or a listed module's.
#include <cstring>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "kernel/btf.h"
#include "state/lists.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_hooks = 4096, max_slots = 1U << 16;
constexpr std::size_t max_functions_of_hook = 64;

/// The member of the structure of all hooks that lies at this offset: "file_open".
std::string hook_name(Look& look, std::string_view table, std::uint64_t offset) {
  const auto btf = look.kernel.btf();
  const auto id = btf ? (*btf)->find(table, BtfKind::structure) : std::nullopt;
  if (!id) return fmt::format("{:#x}", offset);
  const BtfType type = (*btf)->type(*id);
  std::string name = fmt::format("{:#x}", offset);
  for (std::uint32_t i = 0; i < type.count; ++i) {
    const BtfMember member = (*btf)->member_at(type, i);
    if (member.bit_offset / 8 <= offset) name = member.name;
  }
  return name;
}

void tell_hook(Look& look, std::string_view table, std::uint64_t offset, GuestVirt at,
               GuestVirt target, std::string_view how) {
  const std::string name = hook_name(look, table, offset);
  look.find({.what = fmt::format("the security hook {} {} {}, which is neither the kernel's text "
                                 "nor a listed module's",
                                 name, how, look.places.name(target)),
             .object = fmt::format("hook {}", name),
             .sources = {std::string(table), "modules"},
             .sureness = Sureness::certain,
             .address = at});
}

Result<void> check_lists(Look& look, GuestVirt heads) {
  constexpr std::string_view table = "security_hook_heads";
  Members members(look.kernel);
  const std::uint32_t size = members.size(table);
  const Offset list = members.offset("security_hook_list", "list");
  const Offset hook = members.offset("security_hook_list", "hook");
  VMSIGHT_TRY_VOID(members.check());
  if (size / 8 > max_hooks) return lacks("security_hook_heads of a size that is known");
  for (std::uint32_t offset = 0; offset + 8 <= size; offset += 8) {
    std::size_t count = 0;
    const std::uint64_t first = look.reader.u64(heads + offset);
    walk_chain(look.reader, first, [&](GuestVirt node) {
      if (++count > max_functions_of_hook) return look.reader.set_fault(node);
      const GuestVirt at = node - list + hook, target = look.reader.pointer(at);
      if (look.reader.ok() && !look.places.is_code(target))
        tell_hook(look, table, offset, at, target, "calls");
    });
    if (!look.reader.ok()) return unreadable(table);
    look.looked_at += count;
  }
  return {};
}

/// Where the trampoline of a static call jumps to; nullopt if it does not jump.
std::optional<GuestVirt> trampoline_target(Reader& reader, GuestVirt at) {
  std::array<std::byte, 5> code{};
  reader.copy(at, code);
  if (!reader.ok() || code[0] != std::byte{0xe9}) return std::nullopt;
  std::int32_t distance;
  std::memcpy(&distance, &code[1], sizeof(distance));
  return at + code.size() + static_cast<std::uint64_t>(std::int64_t{distance});
}

Result<void> check_slots(Look& look, GuestVirt first) {
  constexpr std::string_view table = "lsm_static_calls_table";
  Members members(look.kernel);
  const std::uint32_t size = members.size(table), slot_size = members.size("lsm_static_call");
  const Offset key = members.offset("lsm_static_call", "key");
  const Offset trampoline = members.offset("lsm_static_call", "trampoline");
  const Offset list = members.offset("lsm_static_call", "hl");
  const Offset function = members.offset("static_call_key", "func");
  const Offset hook = members.offset("security_hook_list", "hook");
  VMSIGHT_TRY_VOID(members.check());
  if (slot_size == 0 || size / slot_size > max_slots)
    return lacks("static_calls_table of a size that is known");
  Reader& reader = look.reader;
  for (std::uint32_t offset = 0; offset + slot_size <= size; offset += slot_size) {
    const GuestVirt slot = first + offset;
    const GuestVirt hooked = reader.pointer(slot + list);
    const GuestVirt call = reader.pointer(slot + key);
    const GuestVirt stub = reader.pointer(slot + trampoline);
    if (!reader.ok()) return unreadable("static_calls_table");
    if (hooked == GuestVirt()) continue;  // nobody uses the slot
    ++look.looked_at;
    const GuestVirt wanted = reader.pointer(hooked + hook),
                    called = reader.pointer(call + function);
    const auto target = trampoline_target(reader, stub);
    if (!reader.ok()) return unreadable("a slot of static_calls_table");
    if (!look.places.is_code(wanted))
      tell_hook(look, table, offset, hooked + hook, wanted, "calls");
    else if (!look.places.is_code(called))
      tell_hook(look, table, offset, call + function, called, "has a static call of");
    else if (!look.places.is_code(stub) || (target && !look.places.is_code(*target)))
      tell_hook(look, table, offset, stub, target.value_or(stub), "jumps to");
  }
  return {};
}

Result<void> check_lsm_hooks(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  if (const auto heads = look.kernel.symbol("security_hook_heads"))
    return check_lists(look, *heads);
  if (const auto slots = look.kernel.symbol("static_calls_table")) return check_slots(look, *slots);
  return lacks("table of security hooks");
}

}  // namespace

extern const IntegrityCheck lsm_hooks_check{
    .info = {.name = "lsm-hooks",
             .what = "security hooks call the kernel or listed modules",
             .family = "kernel"},
    .run = check_lsm_hooks,
};

}  // namespace vmsight
