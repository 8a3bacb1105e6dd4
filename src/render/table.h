// Text tables as ps, lsof and ss print them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "render/output.h"

namespace vmsight {

enum class Align : std::uint8_t { left, right };

struct Column {
  std::string header;
  Align align = Align::left;
};

struct TableOptions {
  bool headers = true;
  std::size_t width = 0;  // of the terminal, in columns; 0 = not a terminal: lines stay whole
};

/// Rows of cells; every column as wide as its widest cell, the last one not padded. Cells are
/// escaped for the terminal as they are added. One flat buffer holds them, so that the
/// 137,000 maps of a busy guest take megabytes, not hundreds.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// Adds the next cell; rows fill up by themselves. An empty text prints as nothing.
  void cell(std::string_view text);
  void cell_number(std::uint64_t value) { cell(fmt::format_int(value).c_str()); }
  void row(std::initializer_list<std::string_view> cells) {
    for (std::string_view text : cells) cell(text);
  }
  std::size_t rows() const { return ends_.size() / columns_.size(); }

  void print(Output& out, const TableOptions& options) const;

 private:
  std::string_view text_of(std::size_t index) const;
  std::vector<std::size_t> widths(bool headers) const;

  std::vector<Column> columns_;
  std::string text_;
  std::vector<std::size_t> ends_;  // of each cell in text_, row after row
};

}  // namespace vmsight
