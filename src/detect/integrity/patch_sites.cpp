// patch-sites: places in code that the kernel patches by its tables have what the tables say.
//
//   jump label          s32 code | s32 target | s64 key     a NOP, or a jump to the target
//   static call         s32 code | s32 key and flags        a call, or a jump, to the key's function; a NOP or
//                                                           "return 0" if it has none
//   its trampoline      __SCT__*                            a jump to such a function, or a return
//
// Distances are from the entry's own fields: linux/jump_label.h, linux/static_call_types.h.
#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "detect/integrity/bpf_symbols.h"
#include "detect/integrity/integrity_check.h"
#include "kernel/architecture.h"

namespace vmsight {
namespace {

constexpr std::uint64_t max_patch_table = 64U << 20;
constexpr std::uint64_t label_size = 16, call_size = 8, key_flags = 3;
constexpr std::byte opcode_call{0xe8}, opcode_jump{0xe9}, opcode_short_jump{0xeb},
    opcode_int3{0xcc}, opcode_return{0xc3};

/// The longest instruction that is patched.
using PatchCode = std::array<std::byte, 6>;

std::optional<PatchCode> read_code(Reader& reader, GuestVirt at) {
  PatchCode code{};
  reader.copy(at, code);
  const bool readable = reader.ok();
  reader.clear_fault();
  return readable ? std::optional(code) : std::nullopt;
}

template <typename Distance>
GuestVirt follow_branch(GuestVirt at, const PatchCode& code, std::size_t opcode_bytes) {
  Distance distance;
  std::memcpy(&distance, &code[opcode_bytes], sizeof(distance));
  return at + opcode_bytes + sizeof(distance) +
         static_cast<std::uint64_t>(static_cast<std::int64_t>(distance));
}

/// Where a call or a jump leads to, conditional or not; nullopt if it is neither.
std::optional<GuestVirt> branch_target(GuestVirt at, const PatchCode& code) {
  if (code[0] == opcode_call || code[0] == opcode_jump)
    return follow_branch<std::int32_t>(at, code, 1);
  if (code[0] == opcode_short_jump) return follow_branch<std::int8_t>(at, code, 1);
  if (code[0] == std::byte{0x0f} && (code[1] & std::byte{0xf0}) == std::byte{0x80})
    return follow_branch<std::int32_t>(at, code, 2);
  return std::nullopt;
}

class PatchSites {
 public:
  explicit PatchSites(Look& look) : look_(look) {}

  Result<void> run() {
    if (auto bpf = read_bpf_symbols(look_.kernel, look_.reader)) bpf_ = *std::move(bpf);
    look_.reader.clear_fault();
    VMSIGHT_TRY_VOID(read_table("__start___jump_table", "__stop___jump_table", label_size,
                                &PatchSites::check_label));
    VMSIGHT_TRY_VOID(read_table("__start_static_call_sites", "__stop_static_call_sites", call_size,
                                &PatchSites::check_call));
    VMSIGHT_TRY_VOID(
        read_modules("jump_entries", "num_jump_entries", label_size, &PatchSites::check_label));
    VMSIGHT_TRY_VOID(read_modules("static_call_sites", "num_static_call_sites", call_size,
                                  &PatchSites::check_call));
    for (const Symbol& symbol : look_.places.symbols()) {
      if (symbol.name.starts_with("__SCT__") && look_.places.in_kernel_text(symbol.address))
        check_trampoline(symbol.address);
    }
    return look_.looked_at != 0 ? Result<void>() : lacks("tables of what it patches");
  }

 private:
  using Check = void (PatchSites::*)(GuestVirt entry);

  Result<void> read_table(const char* first, const char* last, std::uint64_t size, Check check) {
    const auto start = look_.kernel.symbol(first), end = look_.kernel.symbol(last);
    if (!start || !end) return {};  // a kernel without
    if (*end < *start || *end - *start > max_patch_table) return unreadable(first);
    return read_entries(*start, (*end - *start) / size, size, check, first);
  }

  Result<void> read_modules(const char* entries, const char* count, std::uint64_t size,
                            Check check) {
    const auto at = look_.kernel.member("module", entries);
    const auto number = look_.kernel.member("module", count);
    if (!at || !number) return {};
    for (const LoadedModule& module : look_.places.modules()) {
      const GuestVirt start(look_.reader.value(module.at, *at));
      const std::uint64_t of_module = look_.reader.value(module.at, *number);
      if (!look_.reader.ok() || of_module > max_patch_table / size)
        return unreadable(fmt::format("{} of module {}", entries, module.name));
      VMSIGHT_TRY_VOID(read_entries(start, of_module, size, check, module.name));
    }
    return {};
  }

  Result<void> read_entries(GuestVirt start, std::uint64_t count, std::uint64_t size, Check check,
                            std::string_view what) {
    for (std::uint64_t i = 0; i < count; ++i) {
      (this->*check)(start + i * size);
      if (!look_.reader.ok()) return unreadable(what);
    }
    look_.looked_at += count;
    return {};
  }

  GuestVirt by_distance(GuestVirt field) {
    return field + static_cast<std::uint64_t>(std::int64_t{look_.reader.get<std::int32_t>(field)});
  }
  bool is_known(GuestVirt code) const {
    return look_.places.is_code(code) || std::ranges::any_of(bpf_, [&](const BpfSymbol& symbol) {
             return code >= symbol.start && code < symbol.end;
           });
  }
  bool is_nop(const PatchCode& code) const {
    return look_.kernel.space().architecture().nop_length(code, false) >= 2;
  }

  /// Code that was freed after boot keeps its entries: what is there now is anything.
  std::optional<PatchCode> live_code(GuestVirt at) {
    return look_.places.is_code(at) ? read_code(look_.reader, at) : std::nullopt;
  }

  void check_label(GuestVirt entry) {
    const GuestVirt at = by_distance(entry), wanted = by_distance(entry + 4);
    if (!look_.reader.ok()) return;
    const auto code = live_code(at);
    if (!code || is_nop(*code)) return;
    const auto target = branch_target(at, *code);
    if (target == wanted && code->front() != opcode_call) return;
    tell(at, *code, target, "the jump label", wanted);
  }

  void check_call(GuestVirt entry) {
    const GuestVirt at = by_distance(entry);
    const GuestVirt key((by_distance(entry + 4)).raw() & ~key_flags);
    const auto function = look_.kernel.member("static_call_key", "func");
    if (!look_.reader.ok() || !function) return;
    const auto code = live_code(at);
    if (!code || is_nop(*code) || calls_nothing(*code)) return;
    const GuestVirt wanted = look_.reader.pointer(key + function->offset);
    look_.reader.clear_fault();
    const auto target = branch_target(at, *code);
    // A call through the trampoline is what the compiler made.
    if (target && (*target == wanted || is_trampoline(*target))) return;
    tell(at, *code, target, "the static call", wanted);
  }

  void check_trampoline(GuestVirt at) {
    ++look_.looked_at;
    const auto code = read_code(look_.reader, at);
    if (!code || calls_nothing(*code)) return;
    const auto target = branch_target(at, *code);
    if (target && is_known(*target)) return;
    tell(at, *code, target, "the trampoline", GuestVirt());
  }

  /// What a static call is made that has no function, or whose function only warns: a return, a zero
  /// result (xor %eax,%eax with prefixes), a trap (ud1). See arch/x86/kernel/static_call.c.
  static bool calls_nothing(const PatchCode& code) {
    using Bytes = std::array<unsigned char, 5>;
    static constexpr Bytes instead[] = {{0x2e, 0x2e, 0x2e, 0x31, 0xc0},
                                        {0x66, 0x66, 0x48, 0x31, 0xc0},
                                        {0x67, 0x48, 0x0f, 0xb9, 0x3a}};
    return code[0] == opcode_return || std::ranges::any_of(instead, [&](const Bytes& bytes) {
             return std::memcmp(bytes.data(), code.data(), bytes.size()) == 0;
           });
  }

  bool is_trampoline(GuestVirt at) const {
    return std::ranges::any_of(look_.places.symbols_at(at), [](const Symbol& symbol) {
      return symbol.name.starts_with("__SCT__") || symbol.name == "__x86_return_thunk";
    });
  }

  void tell(GuestVirt at, const PatchCode& code, std::optional<GuestVirt> target,
            std::string_view kind, GuestVirt wanted) {
    const std::string name = look_.places.name(at);
    const std::string leads =
        target ? "leads to " + look_.places.name(*target) : std::string("has other code");
    const std::string instead =
        wanted == GuestVirt() ? "" : fmt::format(", not to {}", look_.places.name(wanted));
    const bool is_patched = code[0] == opcode_int3;
    look_.find(
        {.what = is_patched
                     ? fmt::format("{} at {} has a breakpoint: it is patched just now, or its "
                                   "patching stopped",
                                   kind, name)
                     : fmt::format("{} at {} {}{}", kind, name, leads, instead),
         .object = fmt::format("site {}", name),
         .sources = {"kernel text", "__start___jump_table", "__start_static_call_sites"},
         .sureness = is_patched                    ? Sureness::hint
                     : target && is_known(*target) ? Sureness::likely
                                                   : Sureness::certain,
         .address = at});
  }

  Look& look_;
  std::vector<BpfSymbol> bpf_;
};

Result<void> check_patch_sites(Look& look) {
  if (!look.places.modules_problem().empty())
    return Error{ErrorCode::bad_data, look.places.modules_problem()};
  return PatchSites(look).run();
}

}  // namespace

extern const IntegrityCheck patch_sites_check{
    .info = {.name = "patch-sites",
             .what = "jump labels and static calls lead to where the kernel's tables say",
             .family = "kernel"},
    .run = check_patch_sites,
    .doubtful_during = KernelChanges::code,
};

}  // namespace vmsight
