// A kernel that has every member it is asked for, at an offset made up at the first question. So a
// test of a state part only says what matters to it, and puts values where the part will look.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/synthetic_guest.h"
#include "vmsight/kernel.h"

namespace vmsight::test {

class MadeUpKernel final : public Kernel {
 public:
  explicit MadeUpKernel(SyntheticGuest& guest) : guest_(guest), space_(guest.space()) {}

  /// Members of `type` that are made up begin here: for structures that begin with another.
  void start_at(const std::string& type, std::uint32_t offset) { next_[type] = offset; }
  void set(const std::string& type, const std::string& path, Member member) {
    members_[{type, path}] = member;
  }
  void set_size(const std::string& type, std::uint64_t size) { sizes_[type] = size; }
  /// This kernel lacks it: a symbol, a type, or "type.path".
  void lack(const std::string& name) { lacking_.insert(name); }
  void no_longer_lack(const std::string& name) { lacking_.erase(name); }
  void set_symbol(const std::string& name, GuestVirt at) { symbols_[name] = at; }
  void set_enumerator(const std::string& name, std::int64_t value) { enumerators_[name] = value; }
  void set_vmemmap(GuestVirt at) { vmemmap_ = at; }
  void set_cpus(std::vector<std::uint64_t> offsets) { per_cpu_ = std::move(offsets); }

  std::uint32_t offset(std::string_view type, std::string_view path) {
    return member(type, path).value().offset;
  }
  /// Writes a member of the object at `object`.
  template <typename T>
  void put(GuestVirt object, std::string_view type, std::string_view path, const T& value) {
    guest_.put(object + offset(type, path), value);
  }

  std::optional<GuestVirt> symbol(std::string_view name) override {
    if (lacking_.count(std::string(name)) != 0) return std::nullopt;
    const auto [at, is_new] = symbols_.try_emplace(std::string(name));
    if (is_new) at->second = guest_.allocate(4096, 4096);
    return at->second;
  }
  std::optional<std::uint64_t> symbol_size(std::string_view) override { return std::nullopt; }
  std::optional<Member> member(std::string_view type, std::string_view path) override {
    const std::pair key{std::string(type), std::string(path)};
    if (lacking_.count(key.first) != 0) return std::nullopt;
    if (lacking_.count(key.first + "." + key.second) != 0) return std::nullopt;
    const auto [at, is_new] = members_.try_emplace(key);
    if (is_new) {
      std::uint32_t& next = next_[key.first];
      at->second = {next, 8, 0, 0, 1};
      next += 16;
    }
    return at->second;
  }
  std::optional<std::uint64_t> type_size(std::string_view type) override {
    if (lacking_.count(std::string(type)) != 0) return std::nullopt;
    return sizes_.try_emplace(std::string(type), 1024).first->second;
  }

  Result<void> check_running() override { return {}; }  // what is made up never reboots
  const std::string& banner() const override { return text_; }
  const std::string& build_id() const override { return text_; }
  const AddressSpace& space() const override { return space_; }
  const AttachReport& attach_report() const override { return report_; }
  Result<std::span<const Symbol>> symbols() override { return std::span<const Symbol>(); }
  void forget_modules() override {}
  std::optional<Location> locate(GuestVirt) override { return std::nullopt; }
  std::optional<std::int64_t> enumerator(std::string_view name) override {
    const auto found = enumerators_.find(name);
    return found == enumerators_.end() ? std::nullopt : std::optional(found->second);
  }
  Result<const Btf*> btf() override { return Error{ErrorCode::unsupported, "no types"}; }
  Result<const Btf*> btf_of(std::string_view) override { return btf(); }
  GuestVirt page_offset() const override { return space_.direct_map().start; }
  GuestVirt vmemmap() const override { return vmemmap_; }
  std::span<const std::uint64_t> per_cpu_offsets() const override { return per_cpu_; }
  Result<void> save_cache() override { return {}; }

 private:
  SyntheticGuest& guest_;
  AddressSpace space_;
  std::map<std::pair<std::string, std::string>, Member> members_;
  std::map<std::string, std::uint32_t> next_;
  std::map<std::string, std::uint64_t> sizes_;
  std::map<std::string, GuestVirt> symbols_;
  std::map<std::string, std::int64_t, std::less<>> enumerators_;
  std::set<std::string> lacking_;
  GuestVirt vmemmap_;
  std::vector<std::uint64_t> per_cpu_{0};
  std::string text_;
  AttachReport report_;
};

}  // namespace vmsight::test
