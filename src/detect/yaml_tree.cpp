#include "detect/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>
#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "base/utf8.h"
#include "kernel/guest_text.h"

namespace vmsight::detect {
namespace {

/// Thrown through the parser of yaml-cpp, which throws itself; caught below.
struct Refusal {
  YamlProblem problem;
};

unsigned line_of(const YAML::Mark& mark) { return static_cast<unsigned>(mark.line) + 1; }

struct Size {
  std::size_t nodes = 0, bytes = 0;
};
Size size_of(const YamlNode& node) {
  Size size{1, node.text.size()};
  const auto add = [&](const YamlNode& child) {
    const Size one = size_of(child);
    size.nodes += one.nodes;
    size.bytes += one.bytes;
  };
  for (const YamlNode& item : node.items) add(item);
  for (const YamlMember& member : node.members) {
    size.bytes += member.key.size();
    add(member.value);
  }
  return size;
}

class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(std::vector<YamlNode>& items) : items_(items) {}

  void OnDocumentStart(const YAML::Mark&) override {
    open_.clear();
    anchors_.clear();
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    count({1, 0}, line_of(mark));
    add({.kind = YamlNode::Kind::null, .line = line_of(mark)}, anchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    check_tag(mark, tag);
    count({1, text.size()}, line_of(mark));
    add({.kind = YamlNode::Kind::scalar, .line = line_of(mark), .text = text}, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto known = anchors_.find(anchor);
    if (known == anchors_.end()) refuse(line_of(mark), "an alias stands within its own anchor");
    count(size_of(known->second), line_of(mark));
    add(known->second, 0);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open({.kind = YamlNode::Kind::sequence, .line = line_of(mark)}, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open({.kind = YamlNode::Kind::map, .line = line_of(mark)}, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor = 0;
    std::optional<YamlNode> key{};  // of a map: its value is due
  };

  [[noreturn]] static void refuse(unsigned line, std::string what) {
    throw Refusal{{line, std::move(what)}};
  }
  /// "?" is given to what is plain, "!" to what is quoted.
  static void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!")
      refuse(line_of(mark), "tags have no meaning here");
  }

  void open(YamlNode node, YAML::anchor_t anchor) {
    count({1, 0}, node.line);
    if (open_.size() == max_yaml_nesting) {
      refuse(node.line, fmt::format("it is nested deeper than {}", max_yaml_nesting));
    }
    open_.push_back({std::move(node), anchor});
  }
  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    const bool is_root = open_.empty() && done.node.kind == YamlNode::Kind::sequence;
    if (!is_root) add(std::move(done.node), done.anchor);
  }

  /// A node that is complete.
  void add(YamlNode node, YAML::anchor_t anchor) {
    if (anchor != 0) {
      count(size_of(node), node.line);  // it is kept a second time
      anchors_[anchor] = node;
    }
    if (open_.empty()) return add_root(node);
    Open& within = open_.back();
    if (within.node.kind == YamlNode::Kind::sequence) {
      add_item(within, std::move(node));
    } else if (!within.key) {
      within.key = std::move(node);
    } else {
      add_member(within.node, *std::move(within.key), std::move(node));
      within.key.reset();
    }
  }
  void add_item(Open& within, YamlNode node) {
    const bool is_top = open_.size() == 1;
    (is_top ? items_ : within.node.items).push_back(std::move(node));
  }
  static void add_root(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::null) {
      refuse(node.line, "a sequence of rules, macros and lists was expected");
    }
  }
  static void add_member(YamlNode& map, YamlNode key, YamlNode value) {
    if (key.kind != YamlNode::Kind::scalar) refuse(key.line, "a key was expected");
    if (map.members.size() == max_yaml_keys) {
      refuse(key.line, fmt::format("a map has more than {} keys", max_yaml_keys));
    }
    const auto same = [&](const YamlMember& member) { return member.key == key.text; };
    if (std::any_of(map.members.begin(), map.members.end(), same)) {
      refuse(key.line, fmt::format("the key \"{}\" stands here twice", escape_bytes(key.text)));
    }
    map.members.push_back({std::move(key.text), key.line, std::move(value)});
  }
  void count(const Size& size, unsigned line) {
    total_.nodes += size.nodes;
    total_.bytes += size.bytes;
    if (total_.nodes > max_yaml_nodes || total_.bytes > max_yaml_bytes) {
      refuse(line, fmt::format("with its aliases it has more than {} values, or too long ones",
                               max_yaml_nodes));
    }
  }

  std::vector<YamlNode>& items_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, YamlNode> anchors_;
  Size total_;
};

/// What YAML forbids, and yaml-cpp takes for the end of the file or for something else.
std::optional<YamlProblem> forbidden_bytes(std::string_view text) {
  unsigned line = 1;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (!step.valid) return YamlProblem{line, "it is not UTF-8"};
    const std::uint32_t c = step.code_point;
    if (c == '\n') ++line;
    if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f) {
      return YamlProblem{line, fmt::format("it has the control byte 0x{:02x}", c)};
    }
    text.remove_prefix(step.length);
  }
  return std::nullopt;
}

}  // namespace

YamlItems parse_yaml_items(const std::string& text) {
  YamlItems made;
  if (auto problem = forbidden_bytes(text)) {
    made.problems.push_back(*std::move(problem));
    return made;
  }
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Builder builder(made.items);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refusal& refusal) {
    made.problems.push_back(refusal.problem);
  } catch (const YAML::Exception& error) {
    const unsigned line = error.mark.is_null() ? 1 : line_of(error.mark);
    made.problems.push_back({line, fmt::format("it is not YAML: {}", error.msg)});
  } catch (const std::exception& error) {
    made.problems.push_back({1, fmt::format("it cannot be read: {}", error.what())});
  }
  return made;
}

}  // namespace vmsight::detect
