// own-traps: probes of vmsight in the guest's code are where the journal of changes says, whole, and
// nowhere else. Who runs the guest's kernel can see them; see docs/detectors.md for what that means.
//
//   site         the trap, or a jump to a trampoline       removed: other bytes are there
//   trampoline   16 bytes; see probe/kvm/trampoline.h      changed: the jump leads to other code
//   elsewhere    executable pages of the kernel            copied, or moved: the same bytes there
//
// A guest that reboots loses its probes, too: only one whose clock went on has removed them.
#include <string.h>  // memmem
#include <algorithm>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "detect/integrity/ftrace_tables.h"
#include "detect/integrity/integrity_check.h"
#include "detect/integrity/integrity_memory.h"
#include "kernel/architecture.h"
#include "probe/ftrace_site.h"
#include "probe/kvm/trampoline.h"

namespace vmsight {
namespace {

constexpr std::size_t max_trap_tables = 1U << 12;   // of pages, without the direct map
constexpr std::uint64_t max_searched = 256U << 20;  // bytes of code
constexpr std::size_t max_copies = 64;

std::optional<std::string> code_at(Reader& reader, GuestVirt at, std::size_t size) {
  std::string code(size, '\0');
  reader.copy(at, std::as_writable_bytes(std::span(code)));
  const bool readable = reader.ok();
  reader.clear_fault();
  return readable ? std::optional(code) : std::nullopt;
}

/// Where a jump of five bytes leads to.
std::optional<GuestVirt> jump_target(const OwnTrap& trap) {
  if (trap.code.size() != FtraceSite::size || trap.code[0] != '\xe9') return std::nullopt;
  std::int32_t distance;
  std::memcpy(&distance, &trap.code[1], sizeof(distance));
  return trap.address + trap.code.size() + static_cast<std::uint64_t>(std::int64_t{distance});
}

void tell_trap(Look& look, std::string object, std::string what, GuestVirt at) {
  look.find({.what = std::move(what),
             .object = std::move(object),
             .sources = {"journal", "kernel text"},
             .sureness = Sureness::certain,
             .address = at});
}

/// Whether the site has what it should have; tells it if not.
bool check_site(Look& look, const OwnTrap& trap) {
  const std::string name = look.places.name(trap.address);
  const auto code = code_at(look.reader, trap.address, trap.code.size());
  if (!code || *code != trap.code) {
    const std::string_view how = !code                  ? "its page is not mapped"
                                 : *code == trap.before ? "what was there before is there again"
                                                        : "other code is there";
    tell_trap(look, fmt::format("probe {}", name),
              fmt::format("the guest removed vmsight's probe of {}: {}", name, how), trap.address);
    return false;
  }
  const auto trampoline = jump_target(trap);
  if (!trampoline) return true;
  const auto body = code_at(look.reader, *trampoline, Trampoline::size);
  if (body && *body == Trampoline::code(*trampoline, trap.address)) return true;
  tell_trap(look, fmt::format("probe {}", name),
            fmt::format("the guest changed what vmsight's probe of {} runs through, at {}", name,
                        *trampoline),
            trap.address);
  return false;
}

/// Looks for the bytes of traps in code where none was armed.
class CopySearch {
 public:
  explicit CopySearch(Look& look) : look_(look) {}

  Result<void> run() {
    VMSIGHT_TRY(places_, read_ftrace_places(look_.kernel, look_.reader));
    std::ranges::sort(places_);
    const AddressSpace& space = look_.kernel.space();
    const Architecture& architecture = space.architecture();
    const GuestVirt half(~0ULL << (architecture.level_shift(space.levels()) - 1));
    const AddressSpace::Window direct = space.direct_map();
    std::vector<ExecutableRun> runs;
    std::size_t tables = max_trap_tables;
    for (const auto& [first, last] :
         {std::pair(half, direct.start), std::pair(direct.end, GuestVirt(~0ULL))}) {
      if (first < last)
        architecture.find_executable(look_.reader.memory(), space, first, last, tables, runs);
    }
    for (const ExecutableRun& run : runs) search(run);
    return {};
  }

 private:
  void search(const ExecutableRun& run) {
    std::string before;  // the end of the page before, in which a trap may begin
    for (GuestVirt page = run.start; page < run.end(); page = page + page_size) {
      if ((searched_ += page_size) > max_searched || told_.size() > max_copies) return;
      const std::byte* bytes = look_.reader.locate(page);
      look_.reader.clear_fault();
      if (bytes == nullptr) {
        before.clear();
        continue;
      }
      const std::string_view text(reinterpret_cast<const char*>(bytes), page_size);
      search_seam(page, before + std::string(text.substr(0, seam)));
      search_text(page, text);
      before = text.substr(page_size - seam);
    }
  }

  void search_text(GuestVirt at, std::string_view text) {
    for_each(text, trap_code, [&](std::size_t i) {
      if (find_own_trap(look_.own_traps, at + i) == nullptr) tell_copy(at + i);
    });
    // A trampoline stays when its probe is gone, and does nothing then. A copy leads elsewhere.
    for_each(text, trampoline_code, [&](std::size_t i) {
      const auto site = trampoline_site(look_.reader, at + i);
      if (!site || !std::ranges::binary_search(places_, *site)) tell_copy(at + i);
    });
  }
  template <typename Found>
  static void for_each(std::string_view text, std::string_view code, Found found) {
    const char* from = text.data();
    const char* const end = from + text.size();
    while (const void* at =
               ::memmem(from, static_cast<std::size_t>(end - from), code.data(), code.size())) {
      from = static_cast<const char*>(at) + 1;
      found(static_cast<std::size_t>(from - 1 - text.data()));
    }
  }
  void search_seam(GuestVirt page, std::string_view joined) {
    if (joined.size() == 2 * seam) search_text(page - seam, joined);
  }

  void tell_copy(GuestVirt at) {
    if (told_.size() > max_copies || !told_.insert(at).second) return;
    tell_trap(look_, fmt::format("copy {:#x}", at.raw()),
              fmt::format("the bytes of a probe of vmsight are at {}, where none was armed",
                          look_.places.name(at)),
              at);
  }

  static constexpr std::string_view trap_code{"\x3e\x3e\x3e\x0f\x08", 5};
  static constexpr std::string_view trampoline_code{"\x49\x89\xe3\x0f\x08\xe8", 6};
  static constexpr std::size_t seam = 5;  // one byte less than the longer one
  Look& look_;
  std::vector<GuestVirt> places_;
  std::uint64_t searched_ = 0;
  std::set<GuestVirt> told_;
};

/// Whether the guest's clock went on since all probes were there, as far as that is known.
bool guest_ran(Look& look, bool is_well) {
  const auto jiffies = look.kernel.symbol("jiffies_64");
  const std::uint64_t now = jiffies ? look.reader.u64(*jiffies) : 0;
  look.reader.clear_fault();
  std::uint64_t& before = look.memory.ticks_with_traps;
  const bool ran = is_well || before == 0 || now > before;
  if (is_well) before = now;
  return ran;
}

Result<void> check_own_traps(Look& look) {
  look.looked_at = look.own_traps.size();
  if (look.own_traps.empty()) {
    look.note = "vmsight has no probes in the guest's kernel";
    return {};
  }
  bool is_well = true;
  for (const OwnTrap& trap : look.own_traps) {
    if (!trap.is_new) is_well = check_site(look, trap) && is_well;
  }
  if (!guest_ran(look, is_well)) {
    look.findings.clear();
    return Error{ErrorCode::bad_data, "probes are gone, and the guest's clock stands: it reboots"};
  }
  return is_well ? CopySearch(look).run() : Result<void>();  // first what is urgent
}

}  // namespace

extern const IntegrityCheck own_traps_check{
    .info = {.name = "own-traps",
             .what = "probes of vmsight are where they were armed, and nowhere else",
             .family = "probes"},
    .run = check_own_traps,
};

}  // namespace vmsight
