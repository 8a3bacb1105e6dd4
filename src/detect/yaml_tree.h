// YAML as a tree with lines, within bounds: files of rules may be anybody's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vmsight::detect {

struct YamlMember;

struct YamlNode {
  enum class Kind : std::uint8_t { null, scalar, sequence, map };
  Kind kind = Kind::null;
  unsigned line = 0;                // from 1
  std::string text{};               // of a scalar
  std::vector<YamlNode> items;      // of a sequence
  std::vector<YamlMember> members;  // of a map; their keys differ
};
struct YamlMember {
  std::string key;
  unsigned line = 0;
  YamlNode value;
};

struct YamlProblem {
  unsigned line = 0;
  std::string what;
};

/// The items of the sequences that the documents of a file are.
struct YamlItems {
  std::vector<YamlNode> items;        // also of a file with a problem: those before it
  std::vector<YamlProblem> problems;  // one at most
};

inline constexpr std::size_t max_yaml_nodes = 100'000;  // aliases count as what they stand for
inline constexpr std::size_t max_yaml_bytes = 8 << 20;  // of their texts
inline constexpr std::size_t max_yaml_nesting = 32;
inline constexpr std::size_t max_yaml_keys = 256;  // of a map

YamlItems parse_yaml_items(const std::string& text);

}  // namespace vmsight::detect
