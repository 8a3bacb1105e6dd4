#include "detect/rule_difference.h"

namespace vmsight::detect {
namespace {

bool is_of_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

template <typename Visit>
void each_word(std::string_view text, Visit visit) {
  while (!text.empty()) {
    std::size_t length = 0;
    while (length < text.size() && is_of_name(text[length])) ++length;
    if (length != 0) visit(text.substr(0, length));
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
}

/// What the names in a rule stand for. A word that only looks like a name of one is taken along.
class Definitions {
 public:
  using Map = std::map<std::string, std::vector<std::string>, std::less<>>;
  Definitions(const Rule& rule, const RuleSet& set) : set_(set) {
    add(rule.condition.text);
    for (const Exception& exception : rule.exceptions) {
      for (const auto& row : exception.values) {
        for (const auto& operand : row) {
          for (const std::string& item : operand.items) add(item);
        }
      }
    }
  }
  const Map& all() const { return all_; }

 private:
  void add(std::string_view text) {
    each_word(text, [this](std::string_view word) {
      if (all_.contains(word)) return;
      if (const auto list = set_.lists.find(word); list != set_.lists.end()) {
        all_.emplace(word, list->second);
      } else if (const auto macro = set_.macros.find(word); macro != set_.macros.end()) {
        all_.emplace(word, std::vector{macro->second.text});
        add(macro->second.text);
      }
    });
  }
  const RuleSet& set_;
  Map all_;
};

/// The rule without where it stands.
Rule placeless(Rule rule) {
  rule.place = rule.condition.place = rule.output.place = {};
  for (Exception& exception : rule.exceptions) exception.place = {};
  if (auto* probe = std::get_if<ProbeRule>(&rule.kind)) {
    for (RuleField& field : probe->fields) field.expression.place = {};
  }
  return rule;
}

}  // namespace

bool is_same_rule(const Rule& a, const RuleSet& of_a, const Rule& b, const RuleSet& of_b) {
  return placeless(a) == placeless(b) && Definitions(a, of_a).all() == Definitions(b, of_b).all();
}

}  // namespace vmsight::detect
