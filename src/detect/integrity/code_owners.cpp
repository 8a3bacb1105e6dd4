#include "detect/integrity/code_owners.h"

#include "detect/integrity/bpf_symbols.h"
#include "detect/integrity/ftrace_tables.h"
#include "detect/integrity/vmap_areas.h"
#include "state/lists.h"
#include "state/maple_tree.h"
#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::size_t max_owners = 1U << 18;
constexpr std::uint64_t max_owned = 1ULL << 30;  // bytes of one
constexpr std::uint32_t max_its_pages = 1U << 12;
constexpr std::uint64_t max_real_mode = 1ULL << 20;      // it lies below 1 MiB
constexpr std::uint64_t max_program_code = 64ULL << 10;  // of bpf_prog_alloc_no_stats() itself

}  // namespace

CodeOwners CodeOwners::read(Kernel& kernel, Reader& reader, const KernelPlaces& places) {
  CodeOwners owners;
  reader.clear_fault();
  owners.add_modules(places);
  owners.add_bpf(kernel, reader);
  owners.add_kprobes(kernel, reader);
  owners.add_tracers(kernel, reader);
  owners.add_its(kernel, reader, places);
  owners.add_execmem(kernel, reader);
  owners.add_real_mode(kernel, reader);
  owners.add_kexec(kernel, reader);
  return owners;
}

void CodeOwners::add(GuestVirt start, std::uint64_t size, bool to_guard_page) {
  if (size == 0 || size > max_owned || owners_.size() >= max_owners) return;
  const GuestVirt first = start.page(), last = (start + (size - 1)).page();
  owners_.push_back({first, last + page_size, to_guard_page});
}

void CodeOwners::finish(Reader& reader, bool whole, std::string_view what) {
  if (!whole || !reader.ok()) missing_.append(missing_.empty() ? "" : ", ").append(what);
  reader.clear_fault();
}

void CodeOwners::add_modules(const KernelPlaces& places) {
  for (const LoadedModule& module : places.modules()) {
    for (const LoadedModule::Range& text : module.text) add(text.start, text.size);
  }
}

void CodeOwners::add_bpf(Kernel& kernel, Reader& reader) {
  const auto symbols = read_bpf_symbols(kernel, reader);
  for (std::size_t i = 0; symbols && i < symbols->size(); ++i) {
    const BpfSymbol& symbol = (*symbols)[i];
    if (symbol.end > symbol.start) add(symbol.start, symbol.end - symbol.start, true);
  }
  finish(reader, symbols.has_value(), "bpf_kallsyms");
  Members members(kernel);
  const GuestVirt packs = members.symbol("pack_list");
  const Offset link = members.offset("bpf_prog_pack", "list");
  const Offset memory = members.offset("bpf_prog_pack", "ptr");
  if (!members.check()) return;
  walk_list(reader, packs, [&](GuestVirt node) {
    add(reader.pointer(node - link + memory), page_size, true);
    if (owners_.size() >= max_owners) reader.set_fault(node);
  });
  finish(reader, true, "pack_list");
}

Result<void> CodeOwners::add_bpf_programs(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const GuestVirt allocator = members.symbol("bpf_prog_alloc_no_stats");
  const Offset function = members.offset("bpf_prog", "bpf_func");
  VMSIGHT_TRY_VOID(members.check());
  VMSIGHT_TRY(const auto areas, read_vmap_areas(kernel, reader));
  const std::uint64_t size =
      std::min(kernel.symbol_size("bpf_prog_alloc_no_stats").value_or(page_size), max_program_code);
  for (const VmapArea& area : areas) {
    if (area.caller < allocator || area.caller - allocator >= size) continue;
    const GuestVirt code = reader.pointer(area.start + function);
    const VmapArea* holds = reader.ok() ? find_area(areas, code) : nullptr;
    reader.clear_fault();
    if (holds != nullptr) add(holds->start, holds->end - holds->start);
  }
  return {};
}

void CodeOwners::add_kprobes(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const Offset pages = members.offset("kprobe_insn_cache", "pages");
  const Offset link = members.offset("kprobe_insn_page", "list");
  const Offset code = members.offset("kprobe_insn_page", "insns");
  if (!members.check()) return;
  for (const char* cache : {"kprobe_insn_slots", "kprobe_optinsn_slots"}) {
    const auto at = kernel.symbol(cache);
    if (!at) continue;
    walk_list(reader, *at + pages, [&](GuestVirt node) {
      add(reader.pointer(node - link + code), page_size);
      if (owners_.size() >= max_owners) reader.set_fault(node);
    });
    finish(reader, true, cache);
  }
}

void CodeOwners::add_tracers(Kernel& kernel, Reader& reader) {
  const auto add_all = [&](const Result<std::vector<FtraceTracer>>& tracers, const char* list) {
    for (std::size_t i = 0; tracers && i < tracers->size(); ++i) {
      const FtraceTracer& tracer = (*tracers)[i];
      if (tracer.trampoline != GuestVirt()) add(tracer.trampoline, tracer.trampoline_size, true);
    }
    finish(reader, tracers || tracers.error().code == ErrorCode::unsupported, list);
  };
  add_all(read_ftrace_tracers(kernel, reader), "ftrace_ops_list");
  add_all(read_ftrace_trampolines(kernel, reader), "ftrace_ops_trampoline_list");
}

void CodeOwners::add_its_array(Reader& reader, GuestVirt pages, std::uint32_t count) {
  for (std::uint32_t i = 0; i < std::min(count, max_its_pages) && reader.ok(); ++i)
    add(reader.pointer(pages + std::uint64_t{i} * 8), page_size);
}

/// Newer kernels keep them in arrays, older ones in the modules that they were made for.
void CodeOwners::add_its(Kernel& kernel, Reader& reader, const KernelPlaces& places) {
  const auto pages = kernel.member("its_array", "pages");
  const auto count = kernel.member("its_array", "num");
  const auto of_module = kernel.member("module", "arch.its_pages");
  const auto old_pages = kernel.member("module", "its_page_array");
  const auto old_count = kernel.member("module", "its_num_pages");
  const auto add_array = [&](GuestVirt at) {
    add_its_array(reader, reader.pointer(at + pages->offset), reader.u32(at + count->offset));
  };
  const auto kernels = kernel.symbol("its_pages");
  if (pages && count && kernels) add_array(*kernels);
  for (const LoadedModule& module : places.modules()) {
    if (pages && count && of_module) add_array(module.at + of_module->offset);
    if (!old_pages || !old_count) continue;
    add_its_array(reader, reader.pointer(module.at + old_pages->offset),
                  reader.u32(module.at + old_count->offset));
  }
  finish(reader, true, "its_pages");
}

void CodeOwners::add_execmem(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const GuestVirt cache = members.symbol("execmem_cache");
  const Offset busy = members.offset("execmem_cache", "busy_areas");
  const Offset free = members.offset("execmem_cache", "free_areas");
  const auto tree = MapleTree::resolve(kernel);
  if (!members.check() || !tree) return;
  for (const Offset areas : {busy, free}) {
    tree->walk(reader, cache + areas, [&](const MapleTree::Entry& area) {
      add(GuestVirt(area.first), area.last - area.first + 1);
      return owners_.size() < max_owners;
    });
  }
  finish(reader, true, "execmem_cache");
}

/// The code that wakes the other CPUs, in the direct map.
void CodeOwners::add_real_mode(Kernel& kernel, Reader& reader) {
  const auto header = kernel.symbol("real_mode_header");
  if (!header) return;
  const GuestVirt start = reader.pointer(*header);
  const auto blob = kernel.symbol("real_mode_blob"), end = kernel.symbol("real_mode_blob_end");
  if (blob && end && *end > *blob) add(start, std::min(*end - *blob, max_real_mode));
  finish(reader, blob && end, "real_mode_header");
}

/// Of a kernel that is loaded to take over: the page that will start it.
void CodeOwners::add_kexec(Kernel& kernel, Reader& reader) {
  Members members(kernel);
  const Offset page = members.offset("kimage", "control_code_page");
  const std::uint32_t size = members.size("page");
  if (!members.check() || size == 0) return;
  for (const char* image : {"kexec_image", "kexec_crash_image"}) {
    const auto at = kernel.symbol(image);
    const GuestVirt loaded = at ? reader.pointer(*at) : GuestVirt();
    if (loaded == GuestVirt()) continue;
    const GuestVirt of = reader.pointer(loaded + page);
    if (of < kernel.vmemmap()) continue;
    const std::uint64_t frame = (of - kernel.vmemmap()) / size;
    add(kernel.page_offset() + frame * page_size, 2 * page_size);  // KEXEC_CONTROL_PAGE_SIZE
  }
  finish(reader, true, "kexec_image");
}

}  // namespace vmsight
