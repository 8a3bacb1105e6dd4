// The Kernel that find_kernel() gives: one running Linux image.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernel/btf.h"
#include "kernel/cache.h"
#include "kernel/clock_watch.h"
#include "kernel/found_kernel.h"
#include "kernel/module_symbols.h"
#include "vmsight/kernel.h"
#include "vmsight/reader.h"

namespace vmsight {

class LinuxKernel final : public Kernel {
 public:
  /// unsupported if the kernel carries no BTF; not_found if it has not started far enough.
  static Result<std::unique_ptr<LinuxKernel>> create(GuestMemory& memory, FoundKernel found,
                                                     KernelCache cache);

  const std::string& banner() const override { return found_.image.banner; }
  const std::string& build_id() const override { return found_.image.build_id; }
  const AddressSpace& space() const override { return space_; }
  const AttachReport& attach_report() const override { return report_; }
  void set_attach_report(AttachReport report) { report_ = std::move(report); }

  std::optional<GuestVirt> symbol(std::string_view name) override;
  Result<std::span<const Symbol>> symbols() override;
  void forget_modules() override;
  std::optional<Location> locate(GuestVirt address) override;

  std::optional<Member> member(std::string_view type, std::string_view path) override;
  std::optional<std::uint64_t> symbol_size(std::string_view name) override;
  std::optional<std::uint64_t> type_size(std::string_view type) override;
  std::optional<std::int64_t> enumerator(std::string_view name) override;
  Result<const Btf*> btf() override;
  Result<const Btf*> btf_of(std::string_view module) override;

  GuestVirt page_offset() const override { return page_offset_; }
  GuestVirt vmemmap() const override { return vmemmap_; }
  std::span<const std::uint64_t> per_cpu_offsets() const override { return per_cpu_; }

  Result<void> check_running() override;
  Result<void> save_cache() override;

 private:
  LinuxKernel(GuestMemory& memory, FoundKernel found, KernelCache cache);

  Result<void> look_for_another();
  std::optional<std::uint64_t> variable(std::string_view name);
  Result<std::optional<std::uint64_t>> fresh_variable(std::string_view name);
  Result<void> read_layout();
  Result<void> read_per_cpu();
  Result<void> check_types();
  Result<std::vector<std::byte>> read_btf();
  Result<void> add_kernel_symbols();
  void add_module_symbols();
  const Btf* module_btf(std::string_view module);
  template <typename Value, typename Ask>
  std::optional<Value> recall(Remembered<Value>& memo, std::string_view type,
                              const std::string& key, Ask ask);

  struct ModuleTypes {
    std::vector<std::byte> blob;  // until it is parsed
    std::unique_ptr<Btf> btf;
  };
  /// nullptr if the module is not loaded, or has no types.
  ModuleTypes* module_types(std::string_view module);

  GuestMemory& memory_;
  FoundKernel found_;
  KernelCache cache_;
  AttachReport report_;
  AddressSpace space_;
  Reader reader_;
  GuestVirt page_offset_, vmemmap_;
  std::vector<std::uint64_t> per_cpu_;

  // For check_running().
  ClockWatch clock_watch_;
  std::optional<std::vector<BannerHit>> others_seen_;  // images in memory while this one ran

  std::unique_ptr<Btf> btf_;
  std::optional<Error> btf_error_;
  std::unordered_map<std::string, ModuleTypes> module_types_;
  std::unordered_map<std::string, std::uint64_t> untyped_modules_;  // the generation asked in

  Kallsyms::Text symbol_text_;
  std::vector<LoadedModule> modules_;
  std::vector<Symbol> symbols_;
  bool modules_known_ = false;  // symbols_ has those of modules
};

}  // namespace vmsight
