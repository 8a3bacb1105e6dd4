#include "kernel/linux_kernel.h"

#include <algorithm>

#include "base/clock.h"
#include "kernel/architecture.h"
#include "kernel/bytes.h"
#include "kernel/guest_text.h"

namespace vmsight {
namespace {

constexpr std::uint32_t max_cpus = 8192;  // CONFIG_NR_CPUS_RANGE_END
constexpr std::uint64_t max_btf_size = 64U << 20;
constexpr std::uint16_t btf_magic = 0xeb9f;

Error starting(const KernelImage& image, std::string_view what) {
  return {.code = ErrorCode::not_found,
          .message = fmt::format("attach to \"{}\": {}", image.banner, what),
          .hint = "the guest is still starting up; try again"};
}

Error no_types(const KernelImage& image, std::string_view what) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("found \"{}\" but no BTF: {}", image.banner, what),
          .hint = "vmsight needs a kernel built with CONFIG_DEBUG_INFO_BTF"};
}

Error rebooted(std::string what) {
  return {.code = ErrorCode::vm_gone,
          .message = "the guest does not run this kernel any more: " + std::move(what),
          .hint = "the guest may have rebooted; attach again"};
}

bool by_address(const Symbol& a, const Symbol& b) { return a.address < b.address; }

/// The kernel sorts its symbols but for a few. Of aliases it puts the best name first, which a
/// stable sort keeps.
void sort_nearly_sorted(std::vector<Symbol>& symbols) {
  constexpr unsigned few = 64;
  unsigned moved = 0;
  for (auto at = symbols.begin(); at != symbols.end(); ++at) {
    if (at == symbols.begin() || !by_address(*at, *std::prev(at))) continue;
    if (++moved > few) return std::stable_sort(symbols.begin(), symbols.end(), by_address);
    std::rotate(std::upper_bound(symbols.begin(), at, *at, by_address), at, std::next(at));
  }
}

/// "virtio_net:virtnet_info" is in a module; a name without colon in the kernel itself.
std::pair<std::string_view, std::string_view> split_module(std::string_view type) {
  const std::size_t colon = type.find(':');
  if (colon == type.npos) return {{}, type};
  return {type.substr(0, colon), type.substr(colon + 1)};
}

}  // namespace

LinuxKernel::LinuxKernel(GuestMemory& memory, FoundKernel found, KernelCache cache)
    : memory_(memory),
      found_(std::move(found)),
      cache_(std::move(cache)),
      space_(*found_.image.architecture, found_.image.page_table, found_.image.page_table_levels),
      reader_(memory, space_) {}

Result<std::unique_ptr<LinuxKernel>> LinuxKernel::create(GuestMemory& memory, FoundKernel found,
                                                         KernelCache cache) {
  std::unique_ptr<LinuxKernel> kernel(new LinuxKernel(memory, std::move(found), std::move(cache)));
  VMSIGHT_TRY_VOID(kernel->read_layout());
  VMSIGHT_TRY_VOID(kernel->read_per_cpu());
  VMSIGHT_TRY_VOID(kernel->check_types());
  return kernel;
}

std::optional<std::uint64_t> LinuxKernel::variable(std::string_view name) {
  const auto at = symbol(name);
  if (!at) return std::nullopt;
  std::uint64_t value = 0;
  const GuestPhys physical(at->raw() - space_.image().delta);
  if (!read_phys(memory_, physical, std::as_writable_bytes(std::span(&value, 1))))
    return std::nullopt;
  return value;
}

/// The linear windows. The direct map is believed if the kernel's page table agrees about the
/// image, which it maps as all other RAM.
Result<void> LinuxKernel::read_layout() {
  const KernelImage& image = found_.image;
  space_.set_image({image.text_va, image.text_va + image.size, image.delta()});
  const Architecture& architecture = *image.architecture;
  const auto place = [&](std::string_view name, GuestVirt otherwise) {
    return GuestVirt(variable(name).value_or(otherwise.raw()));
  };
  page_offset_ =
      place("page_offset_base", architecture.default_direct_map(image.page_table_levels));
  vmemmap_ = place("vmemmap_base", architecture.default_vmemmap(image.page_table_levels));
  const auto mapped = space_.walk(memory_, page_offset_ + image.text.raw());
  if (!mapped || mapped->address != image.text)
    return starting(image, "its direct map of RAM is not set up");
  space_.set_direct_map(
      {page_offset_, page_offset_ + memory_.ram().end().raw(), page_offset_.raw()});
  return {};
}

/// __per_cpu_offset[cpu] of the possible CPUs; the other entries hold no area of their own.
Result<void> LinuxKernel::read_per_cpu() {
  const auto offsets = symbol("__per_cpu_offset");
  const auto possible = symbol("__cpu_possible_mask");
  const auto ids = symbol("nr_cpu_ids");
  if (!offsets || !possible) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "attach: the kernel has no per-CPU areas (it is not SMP)"};
  }
  const std::uint32_t limit = std::min(ids ? reader_.u32(*ids) : 64U, max_cpus);
  std::size_t count = 0;
  for (std::uint32_t cpu = 0; cpu < limit; ++cpu) {
    const bool is_possible = (reader_.u8(*possible + cpu / 8) >> (cpu % 8) & 1) != 0;
    per_cpu_.push_back(is_possible ? reader_.u64(*offsets + cpu * 8) : 0);
    if (is_possible) count = cpu + 1;
  }
  per_cpu_.resize(count);
  if (!reader_.ok() || count == 0) return starting(found_.image, "it has no per-CPU areas yet");
  return {};
}

/// Types are parsed when first asked for; that they are there is checked now.
Result<void> LinuxKernel::check_types() {
  const auto start = symbol("__start_BTF");
  const auto stop = symbol("__stop_BTF");
  if (!start || !stop || *stop <= *start) return no_types(found_.image, "it carries no types");
  const auto magic = reader_.u16(*start);
  if (!reader_.ok() || magic != btf_magic)
    return no_types(found_.image, fmt::format("{} does not begin with its magic number", *start));
  return {};
}

std::optional<GuestVirt> LinuxKernel::symbol(std::string_view name) {
  const auto found = found_.symbols->find(name);
  if (!found || !*found) return std::nullopt;
  return found_.image.address(**found);
}

Result<void> LinuxKernel::add_kernel_symbols() {
  VMSIGHT_TRY(const Kallsyms* tables, found_.symbols->tables());
  symbols_.reserve(tables->count());
  tables->decode(symbol_text_, [this](std::string_view name, const SymbolValue& value) {
    symbols_.push_back({name, value.type, found_.image.address(value), {}});
  });
  return {};
}

void LinuxKernel::add_module_symbols() {
  reader_.flush();  // the view may have been refreshed since
  auto modules = read_modules(*this, reader_);
  if (!modules) return;  // the kernel's own symbols are worth having without
  modules_ = *std::move(modules);
  for (const LoadedModule& module : modules_) {
    for (const ModuleSymbol& symbol : module.symbols)
      symbols_.push_back({symbol.name, symbol.type, symbol.address, module.name});
  }
}

Result<std::span<const Symbol>> LinuxKernel::symbols() {
  if (modules_known_) return std::span<const Symbol>(symbols_);
  if (symbols_.empty()) {
    VMSIGHT_TRY_VOID(add_kernel_symbols());
    sort_nearly_sorted(symbols_);
  }
  const auto own = static_cast<std::ptrdiff_t>(symbols_.size());
  add_module_symbols();
  std::stable_sort(symbols_.begin() + own, symbols_.end(), by_address);
  std::inplace_merge(symbols_.begin(), symbols_.begin() + own, symbols_.end(), by_address);
  modules_known_ = true;
  return std::span<const Symbol>(symbols_);
}

void LinuxKernel::forget_modules() {
  std::erase_if(symbols_, [](const Symbol& symbol) { return !symbol.module.empty(); });
  modules_.clear();
  modules_known_ = false;
}

std::optional<Kernel::Location> LinuxKernel::locate(GuestVirt address) {
  if (!symbols()) return std::nullopt;
  std::string_view module;
  if (!space_.image().contains(address)) {
    const auto owner = std::find_if(modules_.begin(), modules_.end(),
                                    [&](const auto& loaded) { return loaded.contains(address); });
    if (owner == modules_.end()) return std::nullopt;
    module = owner->name;
  }
  const auto by_address = [](GuestVirt a, const Symbol& s) { return a < s.address; };
  auto at = std::upper_bound(symbols_.begin(), symbols_.end(), address, by_address);
  while (at != symbols_.begin() && std::prev(at)->module != module) --at;
  if (at == symbols_.begin()) return std::nullopt;
  --at;
  while (at != symbols_.begin() && std::prev(at)->address == at->address) --at;
  return Location{at->name, address - at->address, module};
}

std::optional<std::uint64_t> LinuxKernel::symbol_size(std::string_view name) {
  if (const auto* known = found_.memo->symbol_sizes.find(name)) return *known;
  if (!symbols()) return std::nullopt;
  std::optional<std::uint64_t> size;
  if (const auto start = symbol(name)) {
    const auto by_address = [](GuestVirt a, const Symbol& s) { return a < s.address; };
    auto at = std::upper_bound(symbols_.begin(), symbols_.end(), *start, by_address);
    while (at != symbols_.end() && !at->module.empty()) ++at;
    if (at != symbols_.end()) size = at->address - *start;
  }
  found_.memo->symbol_sizes.set(name, size);
  found_.memo->changed = true;
  return size;
}

/// Answers from the memo, else asks the types and remembers what they said.
template <typename Value, typename Ask>
std::optional<Value> LinuxKernel::recall(Remembered<Value>& memo, std::string_view type,
                                         const std::string& key, Ask ask) {
  const auto [module, name] = split_module(type);
  if (!module.empty() && module_types(module) == nullptr) return std::nullopt;
  if (const auto* known = memo.find(key)) return *known;
  const Result<const Btf*> own = btf();
  const Btf* types = !own ? nullptr : module.empty() ? *own : module_btf(module);
  if (types == nullptr) return std::nullopt;
  const std::optional<Value> answer = ask(*types, name);
  memo.set(key, answer);
  found_.memo->changed = true;
  return answer;
}

std::optional<Member> LinuxKernel::member(std::string_view type, std::string_view path) {
  return recall(found_.memo->members, type, fmt::format("{} {}", type, path),
                [path](const Btf& types, auto name) { return types.member(name, path); });
}

std::optional<std::uint64_t> LinuxKernel::type_size(std::string_view type) {
  return recall(found_.memo->type_sizes, type, std::string(type),
                [](const Btf& types, auto name) { return types.size_of(name); });
}

std::optional<std::int64_t> LinuxKernel::enumerator(std::string_view name) {
  return recall(found_.memo->enumerators, name, std::string(name),
                [](const Btf& types, auto wanted) { return types.enumerator(wanted); });
}

Result<std::vector<std::byte>> LinuxKernel::read_btf() {
  const auto start = symbol("__start_BTF");
  const auto stop = symbol("__stop_BTF");
  if (!start || !stop || *stop - *start > max_btf_size)
    return no_types(found_.image, "its size makes no sense");
  std::vector<std::byte> blob(*stop - *start);
  VMSIGHT_TRY_VOID(memory_.scan(GuestPhys(start->raw() - space_.image().delta), blob));
  return blob;
}

Result<const Btf*> LinuxKernel::btf_of(std::string_view module) {
  VMSIGHT_TRY_VOID(btf());
  if (const Btf* types = module_btf(module)) return types;
  return Error{
      .code = ErrorCode::not_found,
      .message = fmt::format("no types of a module '{}'", escape_bytes(module)),
      .hint = "`vmsight lsmod VM` lists modules; not every kernel has types of its modules"};
}

Result<const Btf*> LinuxKernel::btf() {
  if (btf_) return static_cast<const Btf*>(btf_.get());
  if (btf_error_) return *btf_error_;
  const Stopwatch watch;
  auto blob = read_btf();
  auto parsed = blob ? Btf::parse(*std::move(blob)) : std::move(blob).error();
  report_.types_ns += watch.elapsed_ns();
  if (!parsed) {
    btf_error_ = parsed.error();
    return *btf_error_;
  }
  btf_ = *std::move(parsed);
  return static_cast<const Btf*>(btf_.get());
}

/// Reads a module's types once. What was remembered of another build of it is dropped.
LinuxKernel::ModuleTypes* LinuxKernel::module_types(std::string_view module) {
  if (const auto at = module_types_.find(std::string(module)); at != module_types_.end())
    return &at->second;
  // Asked again in another view it may be loaded, but not for each object of this one.
  const auto asked = untyped_modules_.find(std::string(module));
  if (asked != untyped_modules_.end() && asked->second == memory_.generation()) return nullptr;
  reader_.flush();  // the view may have been refreshed since
  auto blob = read_module_btf(*this, reader_, module);
  if (!blob || !*blob) {
    constexpr std::size_t enough = 1024;
    if (untyped_modules_.size() >= enough) untyped_modules_.clear();
    untyped_modules_[std::string(module)] = memory_.generation();
    return nullptr;
  }
  ModuleTypes& types = module_types_[std::string(module)];
  types.blob = **std::move(blob);
  const std::string_view text(reinterpret_cast<const char*>(types.blob.data()), types.blob.size());
  const KernelMemo::ModuleTypes identity{types.blob.size(), fnv1a(text)};
  const auto* known = found_.memo->modules.find(module);
  if (known == nullptr || *known != identity) {
    const std::string prefix = std::string(module) + ":";
    found_.memo->members.erase_prefix(prefix);
    found_.memo->type_sizes.erase_prefix(prefix);
    found_.memo->enumerators.erase_prefix(prefix);
    found_.memo->modules.set(module, identity);
    found_.memo->changed = true;
  }
  return &types;
}

const Btf* LinuxKernel::module_btf(std::string_view module) {
  ModuleTypes* types = module_types(module);
  if (types == nullptr) return nullptr;
  if (types->btf == nullptr && !types->blob.empty()) {
    auto parsed = Btf::parse(std::exchange(types->blob, {}), btf_.get());
    if (parsed) types->btf = *std::move(parsed);
  }
  return types->btf.get();
}

/// A u64 variable as it is now, past all caches.
Result<std::optional<std::uint64_t>> LinuxKernel::fresh_variable(std::string_view name) {
  const auto at = symbol(name);
  if (!at) return std::optional<std::uint64_t>();
  std::uint64_t value = 0;
  FreshRead read{.from = GuestPhys(at->raw() - space_.image().delta),
                 .into = std::as_writable_bytes(std::span(&value, 1))};
  VMSIGHT_TRY_VOID(memory_.read_fresh({&read, 1}));
  return read.ok ? std::optional(value) : std::nullopt;
}

Result<void> LinuxKernel::check_running() {
  VMSIGHT_TRY(const auto base, fresh_variable("page_offset_base"));
  VMSIGHT_TRY(const auto clock, fresh_variable("jiffies_64"));
  if (!clock || (base && *base != page_offset_.raw())) {
    VMSIGHT_TRY_VOID(memory_.health());
    return rebooted("it is no longer where it was found");
  }
  if (!memory_.is_live()) return {};
  const bool behind = clock_watch_.falls_behind(*clock, monotonic_ns());
  if (clock_watch_.readings() < 2 || (others_seen_ && !behind)) return {};
  return look_for_another();
}

/// The first look is the measure for those to come: RAM may have held leftovers all the time.
Result<void> LinuxKernel::look_for_another() {
  VMSIGHT_TRY(std::vector<BannerHit> hits, scan_banners(memory_));
  if (!others_seen_) {
    others_seen_ = std::move(hits);
    return {};
  }
  for (const BannerHit& hit : hits) {
    const bool known = std::any_of(
        others_seen_->begin(), others_seen_->end(),
        [&](const auto& old) { return old.rodata == hit.rodata && old.banner == hit.banner; });
    if (!known) return rebooted(fmt::format("\"{}\" is at {} by now", hit.banner, hit.rodata));
  }
  return {};
}

Result<void> LinuxKernel::save_cache() {
  if (!found_.memo->changed) return {};
  VMSIGHT_TRY_VOID(cache_.save(*found_.memo));
  found_.memo->changed = false;
  return {};
}

}  // namespace vmsight
