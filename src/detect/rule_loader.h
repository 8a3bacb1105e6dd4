// Puts the items of files together: definitions, and what overrides them.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "detect/rule_file.h"
#include "detect/rule_override.h"

namespace vmsight::detect {

class RuleLoader {
 public:
  void add_text(const std::string& file, const std::string& text);
  void add_error(Error error);
  /// Looks at what belongs together: lists in lists, macros in conditions. The loader is empty then.
  RuleSet finish();

 private:
  using Places = std::map<std::string, Place, std::less<>>;
  /// An item while it is read.
  struct Item {
    std::string what, name;  // "rule" and what it is called
    Place place;
    bool good = true;
    std::string title() const;  // `rule "x": `
  };

  /// A list, while the lists in it are put in their places.
  struct Flattening {
    std::vector<std::string> within, items;
    std::size_t looked_at = 0;
  };

  void report(Item& item, unsigned line, const std::string& why, std::string hint = "");
  void read_item(const std::string& file, const YamlNode& node);
  void read_named(Item& item, YamlKeys& keys);
  void read_rule(Item& item, YamlKeys& keys);
  void override_rule(Item& item, YamlKeys& keys);
  void read_macro(Item& item, YamlKeys& keys);
  void read_list(Item& item, YamlKeys& keys);
  /// Whether the item is the first of its name, or overrides one that is there, as it should. What
  /// is new is written down.
  bool takes_place(Item& item, bool overrides, Places& places, std::size_t most);

  void flatten_lists();
  bool flatten(const std::string& name, Flattening& made) const;
  void check_macros();
  void check_rules();

  RuleSet made_;
  Places rules_, macros_, lists_;  // where each was defined, also wrongly
};

}  // namespace vmsight::detect
