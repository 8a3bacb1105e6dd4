// What was learnt of one kernel build: nothing in it depends on where the kernel was loaded, so it
// serves every boot and every VM that runs the build.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "kernel/kallsyms.h"
#include "vmsight/kernel.h"

namespace vmsight {

/// Answers by name; a remembered nullopt means "this kernel has none".
template <typename Value>
class Remembered {
 public:
  /// nullptr if it was never asked for.
  const std::optional<Value>* find(std::string_view name) const {
    const auto at = answers_.find(name);
    return at == answers_.end() ? nullptr : &at->second;
  }
  void set(std::string_view name, std::optional<Value> answer) {
    answers_.insert_or_assign(std::string(name), std::move(answer));
  }
  void erase_prefix(std::string_view prefix) {
    std::erase_if(answers_, [&](const auto& item) { return item.first.starts_with(prefix); });
  }
  std::size_t size() const { return answers_.size(); }
  auto begin() const { return answers_.begin(); }
  auto end() const { return answers_.end(); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  std::unordered_map<std::string, std::optional<Value>, Hash, std::equal_to<>> answers_;
};

struct KernelMemo {
  struct Tables {
    std::int64_t from_rodata = 0;  // bytes from __start_rodata to the first kallsyms table
    KallsymsLayout layout;
    friend bool operator==(const Tables&, const Tables&) = default;
  };
  /// Tells whether a loaded module is the build whose types are remembered.
  struct ModuleTypes {
    std::uint64_t size = 0, hash = 0;  // of its BTF
    friend bool operator==(const ModuleTypes&, const ModuleTypes&) = default;
  };

  std::string build_id;  // hex
  std::string banner;    // at the start of the read-only data: known before anything else
  std::optional<Tables> kallsyms;
  Remembered<SymbolValue> symbols;
  Remembered<Member> members;  // "type path", "module:type path"
  Remembered<std::uint64_t> type_sizes;
  Remembered<std::uint64_t> symbol_sizes;  // up to the next symbol
  Remembered<std::int64_t> enumerators;
  Remembered<ModuleTypes> modules;
  bool changed = false;  // since it was loaded
};

}  // namespace vmsight
