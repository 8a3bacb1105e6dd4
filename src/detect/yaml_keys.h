// Takes the keys of a YAML map one by one, and says what is wrong with them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detect/rule.h"
#include "detect/yaml_tree.h"

namespace vmsight::detect {

/// Is given everything that is wrong.
using YamlReport = std::function<void(unsigned line, std::string what, std::string hint)>;

/// Each function takes a key: nothing if it is not there, or if its value is wrong, which is reported.
class YamlKeys {
 public:
  /// `within` is what the map is the value of: "heartbeat".
  YamlKeys(const YamlNode& map, std::string within, const YamlReport& report);

  enum class Need : std::uint8_t { optional, required };
  const YamlNode* take(std::string_view key, Need need = Need::optional);

  std::optional<std::string> text(std::string_view key, Need need = Need::optional);
  std::optional<bool> boolean(std::string_view key);
  /// A list of texts; an empty one is right.
  std::optional<std::vector<std::string>> texts(std::string_view key);
  /// A text, or a list of them that is not empty.
  std::optional<std::vector<std::string>> text_or_texts(std::string_view key, Need need);
  enum class Zero : std::uint8_t { refused, allowed };
  std::optional<std::uint64_t> duration(std::string_view key, Need need, Zero zero = Zero::refused);
  /// A map.
  std::optional<YamlKeys> map(std::string_view key);
  template <typename T>
  using Choices = std::vector<std::pair<std::string_view, T>>;
  template <typename T>
  std::optional<T> choice(std::string_view key, Need need, const Choices<T>& choices) {
    const auto chosen = text(key, need);
    if (!chosen) return std::nullopt;
    std::vector<std::string_view> names;
    for (const auto& [name, value] : choices) {
      if (name == *chosen) return value;
      names.push_back(name);
    }
    refuse_choice(key, *chosen, names);
    return std::nullopt;
  }

  /// Reports keys that nobody asked for.
  void finish() const;

  bool has(std::string_view key) const { return find(key) != nullptr; }
  unsigned line_of(std::string_view key) const;  // or of the map, without it
  const std::vector<YamlMember>& members() const { return map_.members; }
  const YamlReport& report() const { return report_; }
  /// Reports that the map lacks something.
  void missing(std::string_view what) const;
  /// Reports something about the key.
  void refuse(std::string_view key, std::string_view what, std::string hint = "") const;

 private:
  const YamlMember* find(std::string_view key) const;
  std::string full(std::string_view key) const;
  void refuse_choice(std::string_view key, const std::string& chosen,
                     const std::vector<std::string_view>& names) const;

  const YamlNode& map_;
  std::string within_;
  const YamlReport& report_;
  std::vector<std::string> asked_;
};

/// The text of a scalar that is not empty; for numbers and booleans, too.
std::optional<std::string> scalar_text(const YamlNode& node);
std::optional<std::vector<std::string>> scalar_texts(const YamlNode& node);

}  // namespace vmsight::detect
