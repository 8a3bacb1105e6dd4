// The kernel that checks of integrity are tried on, and how a test runs one.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "detect/integrity/integrity_check.h"
#include "unit/state_made_up_kernel.h"

namespace vmsight::test {

/// The kernel made by hand, with a list of symbols, sizes of some, and a build-id.
class CheckedKernel final : public Kernel {
 public:
  explicit CheckedKernel(SyntheticGuest& guest) : made_(guest) {}
  MadeUpKernel& made() { return made_; }
  /// In ascending order of addresses.
  void add(std::string_view name, GuestVirt at) {
    symbols_.push_back({.name = name, .type = 't', .address = at});
    made_.set_symbol(std::string(name), at);
  }
  void set_size(std::string_view symbol, std::uint64_t size) { sizes_[symbol] = size; }

  const std::string& banner() const override { return made_.banner(); }
  const std::string& build_id() const override { return build_id_; }
  const AddressSpace& space() const override { return made_.space(); }
  const AttachReport& attach_report() const override { return made_.attach_report(); }
  std::optional<GuestVirt> symbol(std::string_view name) override { return made_.symbol(name); }
  std::optional<std::uint64_t> symbol_size(std::string_view name) override {
    const auto found = sizes_.find(name);
    return found == sizes_.end() ? std::nullopt : std::optional(found->second);
  }
  Result<std::span<const Symbol>> symbols() override { return std::span<const Symbol>(symbols_); }
  void forget_modules() override {}
  std::optional<Location> locate(GuestVirt) override { return std::nullopt; }
  std::optional<Member> member(std::string_view type, std::string_view path) override {
    return made_.member(type, path);
  }
  std::optional<std::uint64_t> type_size(std::string_view type) override {
    return made_.type_size(type);
  }
  std::optional<std::int64_t> enumerator(std::string_view name) override {
    return made_.enumerator(name);
  }
  Result<const Btf*> btf() override { return made_.btf(); }
  Result<const Btf*> btf_of(std::string_view module) override { return made_.btf_of(module); }
  GuestVirt page_offset() const override { return made_.page_offset(); }
  GuestVirt vmemmap() const override { return made_.vmemmap(); }
  std::span<const std::uint64_t> per_cpu_offsets() const override {
    return made_.per_cpu_offsets();
  }
  Result<void> check_running() override { return {}; }
  Result<void> save_cache() override { return {}; }

 private:
  MadeUpKernel made_;
  std::string build_id_ = "0123abcd";
  std::vector<Symbol> symbols_;
  std::map<std::string_view, std::uint64_t> sizes_;
};

class Integrity : public ::testing::Test {
 protected:
  Integrity() : kernel_(guest_) {
    kernel_.add("_stext", text());
    kernel_.add("asm_exc_page_fault", text(0x10));
    kernel_.add("__x64_sys_read", text(0x40));
    kernel_.add("__x64_sys_execve", text(0x80));
    kernel_.add("do_exit", text(0xc0));
    kernel_.add("_etext", text(0x2000));
    for (const char* lacking :
         {"ia32_sys_call_table", "x32_sys_call_table", "syscalls_metadata", "module.mem",
          "__start___jump_table", "__start_static_call_sites", "__smp_locks", "smp_alt_modules",
          "ftrace_pages_start", "kprobe_table", "boot_cpu_data", "pv_ops"})
      kernel_.made().lack(lacking);
    guest_.link_list(*kernel_.symbol("modules"), {});
  }
  GuestVirt text(std::uint64_t offset = 0) const { return guest_.image(offset); }

  Findings run(const std::string& name, const State* state = nullptr,
               IntegrityOptions options = {}) {
    options.pause = std::chrono::milliseconds(0);
    auto checker = IntegrityChecker::create(kernel_, guest_.memory(), std::move(options));
    EXPECT_TRUE(checker);
    auto found = (*checker)->run(std::vector<std::string>{name}, state);
    EXPECT_TRUE(found) << found.error().message;
    return *std::move(found);
  }
  static std::vector<std::string> objects(const Findings& all) {
    std::vector<std::string> objects;
    for (const Finding& finding : all.findings) objects.push_back(finding.object);
    return objects;
  }
  /// Nothing found, and the check was done.
  static void expect_clean(const Findings& all) {
    EXPECT_THAT(objects(all), ::testing::IsEmpty());
    ASSERT_EQ(all.reports.size(), 1U);
    EXPECT_TRUE(all.reports[0].done) << all.reports[0].note;
    EXPECT_GT(all.reports[0].looked_at, 0U);
  }
  static void expect_skipped(const Findings& all, const std::string& why) {
    EXPECT_THAT(objects(all), ::testing::IsEmpty());
    ASSERT_EQ(all.reports.size(), 1U);
    EXPECT_FALSE(all.reports[0].done);
    EXPECT_THAT(all.reports[0].note, ::testing::HasSubstr(why));
  }

  SyntheticGuest guest_{{.direct_map_executes = false}};
  CheckedKernel kernel_;
};

}  // namespace vmsight::test
