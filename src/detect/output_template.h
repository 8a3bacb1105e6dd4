// What an alarm says: "%comm pid=%pid silent for %silence".
//
//   %NAME, %{NAME}   the value of a field; a dot that ends a sentence is no part of NAME
//   %%               a percent sign
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "detect/value.h"
#include "vmsight/result.h"

namespace vmsight::detect {

class OutputTemplate {
 public:
  static constexpr std::size_t max_text = 16 * 1024, max_fields = 256;

  OutputTemplate() = default;
  /// usage: "output: WHY, at character N ("...")".
  static Result<OutputTemplate> compile(std::string_view text, const FieldNames& names);

  /// One line of printable ASCII, and of the template's own UTF-8. See show() for the values.
  std::string render(const Fields& fields) const;

  struct Named {
    std::string name;
    FieldType type;
  };
  /// Fields that it names, each once, in their order.
  std::vector<Named> fields() const;

 private:
  struct Piece {
    std::string text;  // or the name of a field
    bool is_field = false;
    FieldType type{};
  };
  void add_text(std::string_view text);

  std::vector<Piece> pieces_;
};

}  // namespace vmsight::detect
