// A Kernel whose symbols and types a test gives: for code that only asks a kernel for those.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernel/btf.h"
#include "support/synthetic_guest.h"
#include "vmsight/kernel.h"

namespace vmsight::test {

class TypedKernel final : public Kernel {
 public:
  TypedKernel(AddressSpace space, std::unique_ptr<Btf> btf) : space_(space), btf_(std::move(btf)) {}

  void add_symbol(std::string name, GuestVirt address) { symbols_[std::move(name)] = address; }
  /// `btf` continues that of the kernel.
  void add_module(std::string_view name, std::unique_ptr<Btf> btf) {
    module_btf_.insert_or_assign(std::string(name), std::move(btf));
  }
  /// The texts must outlive this.
  void add_module_symbol(std::string_view module, std::string_view name, GuestVirt address) {
    all_symbols_.push_back({.name = name, .type = 'd', .address = address, .module = module});
  }
  /// The same with a function; in ascending order of addresses. Module "" is the kernel itself.
  void add_function(std::string_view module, std::string_view name, GuestVirt address) {
    all_symbols_.push_back({.name = name, .type = 't', .address = address, .module = module});
  }
  void remove_symbol(const std::string& name) { symbols_.erase(name); }
  void set_per_cpu_offsets(std::vector<std::uint64_t> offsets) { per_cpu_ = std::move(offsets); }

  Result<void> check_running() override { return {}; }  // what is made up never reboots
  const std::string& banner() const override { return text_; }
  const std::string& build_id() const override { return text_; }
  const AddressSpace& space() const override { return space_; }
  const AttachReport& attach_report() const override { return report_; }
  std::optional<GuestVirt> symbol(std::string_view name) override {
    const auto found = symbols_.find(name);
    return found == symbols_.end() ? std::nullopt : std::optional(found->second);
  }
  Result<std::span<const Symbol>> symbols() override {
    return std::span<const Symbol>(all_symbols_);
  }
  void forget_modules() override {}
  /// Only within 4 KiB after a symbol.
  std::optional<Location> locate(GuestVirt address) override {
    for (const auto& [name, at] : symbols_) {
      if (address >= at && address - at < page_size) return Location{name, address - at, ""};
    }
    return std::nullopt;
  }
  std::optional<std::uint64_t> symbol_size(std::string_view) override { return std::nullopt; }
  std::optional<Member> member(std::string_view type, std::string_view path) override {
    return btf_->member(type, path);
  }
  std::optional<std::uint64_t> type_size(std::string_view type) override {
    return btf_->size_of(type);
  }
  std::optional<std::int64_t> enumerator(std::string_view name) override {
    return btf_->enumerator(name);
  }
  Result<const Btf*> btf() override { return btf_.get(); }
  Result<const Btf*> btf_of(std::string_view module) override {
    const auto found = module_btf_.find(module);
    if (found == module_btf_.end()) return Error{ErrorCode::not_found, "no types of this module"};
    return found->second.get();
  }
  GuestVirt page_offset() const override { return space_.direct_map().start; }
  GuestVirt vmemmap() const override { return GuestVirt(); }
  std::span<const std::uint64_t> per_cpu_offsets() const override { return per_cpu_; }
  Result<void> save_cache() override { return {}; }

 private:
  AddressSpace space_;
  std::unique_ptr<Btf> btf_;
  std::map<std::string, std::unique_ptr<Btf>, std::less<>> module_btf_;
  std::vector<Symbol> all_symbols_;
  std::map<std::string, GuestVirt, std::less<>> symbols_;
  std::vector<std::uint64_t> per_cpu_;
  std::string text_;
  AttachReport report_;
};

}  // namespace vmsight::test
