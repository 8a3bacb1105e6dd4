#include "probe/kvm/arm.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>

#include "kernel/btf.h"
#include "kernel/guest_text.h"

namespace vmsight {
namespace {

std::string as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string in_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes)
    text += fmt::format("{}{:02x}", text.empty() ? "" : " ", static_cast<unsigned>(byte));
  return text;
}

/// How many argument registers it takes; nullopt if it goes to the stack, or may.
std::optional<unsigned> registers_for(const Btf& btf, TypeId id) {
  const BtfType type = btf.resolve(id);
  if (type.kind == BtfKind::pointer || type.is_enum()) return 1;
  const auto size = btf.size_of(id);
  if (!size || *size > 16 || type.kind == BtfKind::floating) return std::nullopt;
  return *size > 8 ? 2 : 1;
}

}  // namespace

Error refuse_site(const ProbeSite& site, std::string_view why, std::string hint) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("probe {}: {}", escape_bytes(to_string(site)), why),
          .hint = std::move(hint)};
}

Result<void> check_no_stack_arguments(Kernel& kernel, const ProbeSite& site) {
  constexpr unsigned argument_registers = 6;
  const std::string hint = "probe its entry (kprobe), or use --engine gdbstub";
  // A system call's wrapper gets a struct pt_regs * and nothing else (asm/syscall_wrapper.h); those of
  // calls without arguments are not in BTF.
  if (site.function.starts_with("__x64_sys_") || site.function.starts_with("__ia32_sys_"))
    return {};
  VMSIGHT_TRY(const Btf* btf, site.module.empty() ? kernel.btf() : kernel.btf_of(site.module));
  const auto id = btf->find(site.function, BtfKind::function);
  if (!id) return refuse_site(site, "its arguments are not known; some may be on the stack", hint);
  const BtfType prototype = btf->type(btf->type(*id).target);
  unsigned used = 0;
  for (std::uint32_t i = 0; prototype.kind == BtfKind::function_proto && i < prototype.count; ++i) {
    const auto more = registers_for(*btf, btf->parameter_at(prototype, i).type);
    used += more.value_or(argument_registers + 1);
    if (used > argument_registers) return refuse_site(site, "it has arguments on the stack", hint);
  }
  return {};
}

Result<std::unique_ptr<Armory>> Armory::open(const Vm& vm, Kernel& kernel, GuestMemory& memory,
                                             std::chrono::milliseconds max_halt) {
  VMSIGHT_TRY(RamWriter ram, RamWriter::open(vm.info().pid));
  std::unique_ptr<Armory> armory(new Armory(vm, kernel, memory, std::move(ram), max_halt));
  VMSIGHT_TRY_VOID(armory->look_anew());
  armory->sites_ = FtraceSites::resolve(kernel, armory->reader_);
  return armory;
}

Armory::~Armory() {
  for (Batch& batch : batches_) {
    if (patcher_.revert(batch.patches)) static_cast<void>(patcher_.forget(batch.recorded));
  }
}

Result<void> Armory::look_anew() {
  VMSIGHT_TRY_VOID(memory_.refresh());
  reader_.flush();
  return {};
}

Result<TrapSite> Armory::find(const ProbeSite& site) {
  VMSIGHT_TRY_VOID(look_anew());
  const GuestVirt function = site.address - site.offset;
  FtraceSite place = sites_.find(reader_, function);
  if (place.state == FtraceSite::State::unrecorded) {
    FtraceSites anew = FtraceSites::resolve(kernel_, reader_);
    if (anew.has_records())
      sites_ = std::move(anew);  // else they could not be read now: bytes alone do not do
    place = sites_.find(reader_, function);
  }
  switch (place.state) {
    case FtraceSite::State::idle:
      break;
    case FtraceSite::State::traced:
      return refuse_site(site, "the guest traces this function itself",
                         "stop the tracer in the guest, or use --engine gdbstub");
    case FtraceSite::State::probed:
      return refuse_site(
          site, "another probe is there already",
          "end the other vmsight; `vmsight doctor --recover` removes what a killed one left");
    case FtraceSite::State::unrecorded:
      return refuse_site(site,
                         "the guest's kernel has no record of a place that can be patched there",
                         "use --engine gdbstub");
    case FtraceSite::State::unread:
      return refuse_site(site, "the function's code is not readable",
                         "the guest may be rebooting; try again");
    case FtraceSite::State::none:
      return refuse_site(
          site,
          fmt::format(
              "the function has no place that can be patched: it is not traceable by ftrace "
              "(it begins with {})",
              in_hex(place.bytes)),
          "use --engine gdbstub");
  }
  if (site.offset != 0 && site.address != place.address) {
    return refuse_site(site, "only where a function begins can be patched", "use --engine gdbstub");
  }
  return TrapSite{.name = site.function,
                  .function = function,
                  .address = place.address,
                  .nop = as_text(place.bytes),
                  .code = as_text(invd_trap)};
}

Result<void> Armory::add_trampoline(const ProbeSite& site, TrapSite& trap) {
  VMSIGHT_TRY_VOID(check_no_stack_arguments(kernel_, site));
  auto place = space_.find(reader_, trap.function, trap.address);
  if (!place) return refuse_site(site, place.error().message, place.error().hint);
  trap.trampoline = place->address;
  trap.trampoline_before = std::move(place->before);
  trap.code = Trampoline::jump(trap.address, trap.trampoline);
  return {};
}

Result<void> Armory::add_patches(std::vector<CodePatch>& patches, GuestVirt at,
                                 const std::string& before, const std::string& after) {
  for (std::size_t done = 0; done < before.size();) {
    const GuestVirt address = at + done;
    const std::size_t size =
        std::min<std::size_t>(before.size() - done, page_size - address.page_offset());
    const auto physical = kernel_.space().translate(memory_, address);
    const RamRange* range = physical ? vm_.ram().find(*physical) : nullptr;
    if (range == nullptr) {
      return Error{.code = ErrorCode::fault,
                   .message = fmt::format("patch the code at {}: it is not mapped to RAM", address),
                   .address = address.raw()};
    }
    patches.push_back({.instruction = at,
                       .address = address,
                       .at = *physical,
                       .host = range->host + (*physical - range->start),
                       .before = before.substr(done, size),
                       .after = after.substr(done, size)});
    done += size;
  }
  return {};
}

Result<void> Armory::arm(std::span<const Step> steps, const FilePatches& files) {
  if (steps.empty() && files.fresh.empty() && files.there.empty()) return {};
  std::vector<CodePatch> patches;
  Batch batch;
  for (const auto& [trap, now] : steps) {
    if (!trap->has_trampoline()) continue;
    const std::string code = Trampoline::code(trap->trampoline, trap->address);
    if (code == trap->trampoline_before) continue;
    VMSIGHT_TRY_VOID(add_patches(patches, trap->trampoline, trap->trampoline_before, code));
  }
  for (const auto& [trap, now] : steps) {
    const std::size_t first = batch.patches.size();
    VMSIGHT_TRY_VOID(add_patches(patches, trap->address, now, trap->code));
    VMSIGHT_TRY_VOID(add_patches(batch.patches, trap->address, trap->nop, trap->code));
    batch.armed.insert(batch.patches[first].host);
    places_[trap->address] = batch.patches[first].host;
  }
  patches.insert(patches.end(), files.fresh.begin(), files.fresh.end());
  for (const auto& some : {files.fresh, files.there}) {
    batch.patches.insert(batch.patches.end(), some.begin(), some.end());
    for (const CodePatch& patch : some) batch.armed.insert(patch.host);
  }
  VMSIGHT_TRY(batch.recorded, patcher_.record(batch.patches));
  if (auto done = patches.empty() ? Result<void>() : patcher_.apply(patches, files.check); !done) {
    // It may have failed when all was written already.
    if (patcher_.revert(batch.patches)) static_cast<void>(patcher_.forget(batch.recorded));
    return done;
  }
  batches_.push_back(std::move(batch));
  return {};
}

Result<void> Armory::disarm(std::span<const TrapSite* const> traps,
                            std::span<const CodePatch> files) {
  if (traps.empty() && files.empty()) return {};
  std::vector<CodePatch> patches(files.begin(), files.end());
  std::vector<HostVirt> places;
  for (const CodePatch& patch : files) places.push_back(patch.host);
  for (const TrapSite* trap : traps) {
    const std::size_t first = patches.size();
    VMSIGHT_TRY_VOID(add_patches(patches, trap->address, trap->nop, trap->code));
    places.push_back(patches[first].host);
  }
  VMSIGHT_TRY_VOID(patcher_.revert(patches));
  return release(places);
}

void Armory::forget(std::span<const CodePatch> files) {
  std::vector<HostVirt> places;
  for (const CodePatch& patch : files) places.push_back(patch.host);
  static_cast<void>(release(places));
}

void Armory::forget(std::span<const TrapSite* const> traps) {
  std::vector<HostVirt> places;
  for (const TrapSite* trap : traps) {
    const auto at = places_.find(trap->address);
    if (at != places_.end()) places.push_back(at->second);
  }
  static_cast<void>(release(places));
}

/// A batch is kept, with the process that would undo it, for as long as any of its traps is armed.
Result<void> Armory::release(std::span<const HostVirt> traps) {
  Result<void> forgotten;
  for (auto batch = batches_.begin(); batch != batches_.end();) {
    for (const HostVirt trap : traps) batch->armed.erase(trap);
    if (!batch->armed.empty()) {
      ++batch;
      continue;
    }
    if (auto done = patcher_.forget(batch->recorded); !done) forgotten = std::move(done);
    batch = batches_.erase(batch);
  }
  return forgotten;
}

Result<bool> Armory::is_armed(const TrapSite& trap) {
  std::vector<CodePatch> patches;
  VMSIGHT_TRY_VOID(add_patches(patches, trap.address, trap.nop, trap.code));
  for (const CodePatch& patch : patches) {
    std::string bytes(patch.after.size(), '\0');
    VMSIGHT_TRY_VOID(ram_.read(patch.host, std::as_writable_bytes(std::span(bytes))));
    if (bytes != patch.after) return false;
  }
  return true;
}

}  // namespace vmsight
